"""Where models come from: a name from the small zoo, a local folder, or a hub id."""

from strop.checkpoints.classifier import head_parameters, is_classifier, labels_in_own_order, load_classifier
from strop.checkpoints.identity import BaseIdentity, identify
from strop.checkpoints.load import load
from strop.checkpoints.named import best_device, open_model, takes_names
from strop.checkpoints.offloaded import fetched, placing_hooks
from strop.checkpoints.own import ATTACHED, own_parameters, own_tensor
from strop.checkpoints.zoo import ZOO, ZooModel, pull

__all__ = [
    "ATTACHED",
    "ZOO",
    "BaseIdentity",
    "ZooModel",
    "best_device",
    "fetched",
    "head_parameters",
    "identify",
    "is_classifier",
    "labels_in_own_order",
    "load",
    "load_classifier",
    "open_model",
    "own_parameters",
    "own_tensor",
    "placing_hooks",
    "pull",
    "takes_names",
]
