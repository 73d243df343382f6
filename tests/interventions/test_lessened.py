"""A share of what an edit learned changes that share of what all of it changes, for every method that can say so."""

from collections.abc import Callable

import pytest
import torch
from tests.fixtures.every_method import ADDITIONS, STATE_EDITS, Edit, carried
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, StreamSite, WeightSite
from strop.interventions import Lessens, LowRankEdit, Positions, SpectrumScaling, WeightIntervention
from strop.linalg import decompose

SITE = WeightSite(1, MatrixType.UP)
SHARES = (0.0, 0.37, 1.0)
Tiny = Callable[..., nn.Module]


def change_of_outputs(edit: WeightIntervention, matrix: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Return what an edit changes of a matrix and, as one more column, of its output."""
    shift = edit.output_shift(tensors)
    column = shift if shift is not None else torch.zeros(matrix.shape[0])
    return torch.cat([edit.edit(matrix, decompose=decompose, tensors=tensors) - matrix, column[:, None]], 1)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "edit",
    [*ADDITIONS.values(), SpectrumScaling, lambda site: SpectrumScaling(site, top=8, band=2)],
    ids=[*ADDITIONS, "spectrum", "spectrum with a band"],
)
def test_an_edit_of_weights_changes_a_share(tiny: Tiny, edit: Edit, share: float) -> None:
    model, own = tiny("llama"), edit(SITE)
    matrix = Anatomy.of(model).read_weight(model, SITE).detach()
    [tensors] = carried(model, [own])
    assert isinstance(own, Lessens)
    lesser = own.lessened(tensors, share)
    assert lesser is not None
    assert set(lesser) == set(own.learned_tensors)
    whole = change_of_outputs(own, matrix, tensors)
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(change_of_outputs(own, matrix, lesser), share * whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("method", STATE_EDITS)
def test_an_edit_of_states_changes_a_share(tiny: Tiny, method: str, share: float) -> None:
    model, own = tiny("llama"), STATE_EDITS[method](SITE)
    [tensors] = carried(model, [own])
    states = torch.randn(5, Anatomy.of(model).hidden_size, generator=torch.Generator().manual_seed(1))
    lesser = own.lessened(tensors, share)
    if method == "consreft":  # puts a constant in the place of the state's own part: less of that is none of its edits
        assert lesser is None
        return
    assert lesser is not None
    before, after = (own.module(held, states.shape[1])(states).detach() - states for held in (tensors, lesser))
    assert before.abs().max() > 0.01
    torch.testing.assert_close(after, share * before, atol=1e-5, rtol=1e-4)


def test_what_is_bent_has_no_share() -> None:
    bent = LowRankEdit(StreamSite(1), "direft", rank=2, positions=Positions.parse("l1"), activation="relu")
    assert bent.lessened(bent.initial_tensors(8, init="paper"), 0.5) is None


def test_steps_of_the_spectrum_are_not_learned_and_stay() -> None:
    levels = {"levels": torch.ones(4, dtype=torch.int8)}
    assert SpectrumScaling(SITE, 0.01).lessened(levels, 0.5) == {}
