"""The table of a model's matrices: one row each, with the shape, place and spectrum numpy finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.stored import offloaded, packed

from strop.analysis import describe_matrices
from strop.anatomy import Anatomy, MatrixType
from strop.errors import SiteError
from strop.linalg import DecompositionCache
from strop.progress import Progress

ATTENTION = ["query", "key", "value", "output"]
EXPECTED = {
    "llama": {
        **{"query": (32, 32), "key": (16, 32), "value": (16, 32), "output": (32, 32)},
        **{"gate": (48, 32), "up": (48, 32), "down": (32, 48)},
    },
    "gpt2": {**dict.fromkeys(ATTENTION, (32, 32)), "up": (128, 32), "down": (32, 128)},
    "gpt_neox": {**dict.fromkeys(ATTENTION, (32, 32)), "up": (48, 32), "down": (32, 48)},
}


@pytest.mark.parametrize("family", list(EXPECTED))
def test_every_matrix_has_a_row_with_its_shape_and_spectrum(
    tiny: Callable[..., Any], family: str, tmp_path: Path
) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    rows = describe_matrices(model, anatomy, decompositions=DecompositionCache(tmp_path))
    assert [(row.layer, str(row.matrix_type)) for row in rows] == [
        (layer, name) for layer in range(3) for name in anatomy.matrix_types
    ]
    for row in rows:
        assert row.shape == EXPECTED[family][str(row.matrix_type)]
        assert row.parameters == row.shape[0] * row.shape[1]
        assert row.dtype == "float32"
        grouped = family == "llama" and row.matrix_type in ("key", "value")
        assert row.heads == (None if str(row.matrix_type) not in ATTENTION else 2 if grouped else 4)
        held = model.get_submodule(row.module).weight
        assert held.numel() >= row.parameters
        site = next(s for s in anatomy.sites(layers=[row.layer]) if s.matrix_type == row.matrix_type)
        s = np.linalg.svd(anatomy.read_weight(model, site).detach().numpy(), compute_uv=False)
        assert row.spectrum is not None
        assert row.spectrum.full_rank == min(row.shape)
        share = s / s.sum()
        assert row.spectrum.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


def test_layers_and_types_are_chosen_and_spectra_left_out(tiny: Callable[..., Any]) -> None:
    class Counting(Progress):
        total = done = 0

        def start(self, stage: str, total: int) -> None:
            self.total = total

        def advance(self, steps: int = 1) -> None:
            self.done += steps

    model, progress = tiny("llama"), Counting()
    rows = describe_matrices(
        model,
        Anatomy.of(model),
        layers=[0, 2],
        matrix_types=[MatrixType.UP],
        spectra=False,
        progress=progress,
    )
    assert [(row.layer, row.matrix_type, row.spectrum) for row in rows] == [
        (0, MatrixType.UP, None),
        (2, MatrixType.UP, None),
    ]
    assert progress.done == progress.total == 2


def test_what_the_model_has_not_is_named(tiny: Callable[..., Any]) -> None:
    model = tiny("gpt2")
    with pytest.raises(SiteError, match="layers 0 to 2"):
        describe_matrices(model, Anatomy.of(model), layers=[3])
    with pytest.raises(SiteError, match="no gate matrix"):
        describe_matrices(model, Anatomy.of(model), matrix_types=[MatrixType.GATE])


def test_half_precision_weights_are_described_as_such(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny("llama").to(torch.bfloat16)
    (row,) = describe_matrices(
        model, Anatomy.of(model), layers=[0], matrix_types=[MatrixType.UP], decompositions=DecompositionCache(tmp_path)
    )
    assert row.dtype == "bfloat16"
    assert row.spectrum is not None
    assert row.spectrum.full_rank == 32


def test_what_cannot_be_read_is_described_by_how_it_is_stored(tiny: Callable[..., Any], tmp_path: Path) -> None:
    for model, stored in (
        (packed(tiny("llama")), "quantised (bitsandbytes)"),
        (offloaded(tiny("llama"), "map", tmp_path), "offloaded"),
    ):
        rows = describe_matrices(model, Anatomy.of(model), matrix_types=[MatrixType.UP])
        assert [row.stored for row in rows] == ["", stored, stored]
        assert [row.shape for row in rows] == [(48, 32)] * 3
        assert [row.device for row in rows] == ["cpu"] * 3
        assert [row.spectrum is not None for row in rows] == [True, False, False]
