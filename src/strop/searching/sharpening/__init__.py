"""Sharpening: a few steps on all singular values."""

from strop.searching.sharpening.plan import SharpenPlan
from strop.searching.sharpening.sharpen import sharpen
from strop.searching.sharpening.sharpener import Sharpener
from strop.searching.sharpening.spectrum import Preconditioner

__all__ = ["Preconditioner", "SharpenPlan", "Sharpener", "sharpen"]
