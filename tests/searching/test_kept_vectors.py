"""Vectors over singular values on disk: read back to the last bit, or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from strop.anatomy import MatrixType, WeightSite
from strop.searching.kept_vectors import keep_vectors, kept_vectors

SITES = (WeightSite(0, MatrixType.UP), WeightSite(2, MatrixType.KEY, head=1))
RANKS = {SITES[0]: 3, SITES[1]: 2}


def vectors() -> dict[WeightSite, torch.Tensor]:
    return {site: torch.rand(rank, dtype=torch.float64) for site, rank in RANKS.items()}


def test_what_was_kept_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    given = vectors()
    keep_vectors(tmp_path / "deep" / "g.safetensors", given)
    found = kept_vectors(tmp_path / "deep" / "g.safetensors", RANKS)
    assert found is not None
    assert all(torch.equal(found[site], given[site]) for site in SITES)


@pytest.mark.parametrize("damage", ["none", "cut", "another site", "another rank", "another precision", "not finite"])
def test_what_is_damaged_or_of_other_matrices_counts_as_nothing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "g.safetensors"
    if damage != "none":
        keep_vectors(path, vectors())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    if damage == "not finite":
        keep_vectors(path, {site: own / 0 for site, own in vectors().items()})
    if damage == "another precision":
        save_file({str(site): own.float() for site, own in vectors().items()}, path)
    ranks = {
        "another site": {WeightSite(1, MatrixType.UP): 3},
        "another rank": {SITES[0]: 4, SITES[1]: 2},
    }.get(damage, RANKS)
    assert kept_vectors(path, ranks) is None


def test_where_nothing_can_be_written_nothing_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    keep_vectors(tmp_path / "file" / "g.safetensors", vectors())
    assert kept_vectors(tmp_path / "file" / "g.safetensors", RANKS) is None
