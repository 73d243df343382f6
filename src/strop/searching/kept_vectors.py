"""A number for each singular value of many matrices, kept in a file: what was asked once is not asked again."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.anatomy import WeightSite
from strop.files import replacing_file


def keep_vectors(path: Path, vectors: Mapping[WeightSite, Tensor]) -> None:
    """Write vectors to a file, whole or not at all; where it cannot be written they are asked anew another time."""
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            save_file({str(site): own.contiguous() for site, own in vectors.items()}, temporary)


def kept_vectors(path: Path, ranks: Mapping[WeightSite, int]) -> dict[WeightSite, Tensor] | None:
    """Return what a file holds; None where there is none, or what is there is damaged, of other matrices or not finite.

    Args:
        path: of the file.
        ranks: how many numbers each matrix should have.
    """
    try:
        kept = load_file(path)
        found = {site: kept[str(site)] for site in ranks}
    except (SafetensorError, KeyError, OSError):
        return None
    fits = all(own.shape == (ranks[site],) and own.dtype == torch.float64 for site, own in found.items())
    return found if fits and all(bool(torch.isfinite(own).all()) for own in found.values()) else None
