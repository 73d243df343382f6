"""Where models come from: a name from the small zoo, a local folder, or a hub id."""

from strop.checkpoints.identity import BaseIdentity, identify
from strop.checkpoints.load import load
from strop.checkpoints.zoo import ZOO, ZooModel, pull

__all__ = ["ZOO", "BaseIdentity", "ZooModel", "identify", "load", "pull"]
