"""Where models come from: a name from the small zoo, a local folder, or a hub id."""

from strop.checkpoints.classifier import (
    head_parameters,
    is_classifier,
    labels_in_own_order,
    load_classifier,
    load_image_classifier,
    looks_at_images,
)
from strop.checkpoints.identity import BaseIdentity, identify
from strop.checkpoints.load import load, of_images, saved_classifier
from strop.checkpoints.named import best_device, open_as_saved, open_model, takes_names, takes_names_of_classifiers
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
    "load_image_classifier",
    "looks_at_images",
    "of_images",
    "open_as_saved",
    "open_model",
    "own_parameters",
    "own_tensor",
    "placing_hooks",
    "pull",
    "saved_classifier",
    "takes_names",
    "takes_names_of_classifiers",
]
