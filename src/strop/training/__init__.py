"""Fit edits of hidden states and prove them."""

from strop.training.checkpoints import InterventionCheckpoints
from strop.training.plan import TrainPlan
from strop.training.train import train

__all__ = ["InterventionCheckpoints", "TrainPlan", "train"]
