"""Modules that are given the tokens of a batch one after another are edited as if each sequence stood alone."""

from typing import Any

import pytest
import torch
from tests.fixtures.opt import OPT, make_tiny_opt
from torch import Tensor

from strop.anatomy import Anatomy, MatrixType, Stream, StreamSite, WeightSite, by_sequence
from strop.errors import AnatomyError, InterventionError
from strop.interventions import (
    LowRankEdit,
    OutputBias,
    Positions,
    SingularValuePruning,
    SpectrumScaling,
    applied_interventions,
    attach_interventions,
    prompt_lengths,
)

IDS = torch.arange(1, 17).view(2, 8)
LENGTHS = [6, 4]


@pytest.fixture
def model() -> Any:
    return make_tiny_opt()


def logits(model: Any, rows: slice) -> Tensor:
    with torch.no_grad(), prompt_lengths(LENGTHS[rows]):
        return model(input_ids=IDS[rows], attention_mask=torch.ones_like(IDS[rows]), use_cache=False).logits


@pytest.mark.parametrize("positions", ["f2+l1", "prompt", "all"])
@pytest.mark.parametrize("stream", Stream)
def test_states_of_a_batch_are_edited_as_those_of_each_sequence_alone(
    stream: Stream, positions: str, model: Any
) -> None:
    edit = LowRankEdit(StreamSite(1, stream), "loreft", rank=4, positions=Positions.parse(positions))
    tensors = edit.initial_tensors(32, init="paper", generator=torch.Generator().manual_seed(0))
    tensors["bias"] += 1
    plain = logits(model, slice(0, 2))
    with applied_interventions(model, [edit], tensors=[tensors], anatomy=Anatomy.of(model, family=OPT)):
        together = logits(model, slice(0, 2))
        alone = [logits(model, slice(row, row + 1)) for row in (0, 1)]
    assert float((together - plain).abs().max()) > 0.05
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("matrix_type", [MatrixType.UP, MatrixType.DOWN])
def test_weights_learn_there(matrix_type: MatrixType, model: Any) -> None:
    site, anatomy = WeightSite(1, matrix_type), Anatomy.of(model, family=OPT)
    scaling, bias = SpectrumScaling(site), OutputBias(WeightSite(1, MatrixType.DOWN))
    carried = [{"change": torch.linspace(-0.5, 0.5, 32)}, {"bias": torch.ones(32)}]
    with applied_interventions(model, [scaling, bias], tensors=carried, anatomy=anatomy):
        expected = logits(model, slice(0, 2))
    attachment = attach_interventions(model, [scaling, bias], tensors=carried, anatomy=anatomy, trainable=True)
    torch.testing.assert_close(logits(model, slice(0, 2)), expected, atol=1e-4, rtol=1e-4)
    attachment.detach()


def test_a_bias_by_position_is_refused_there(model: Any) -> None:
    edit = SingularValuePruning(WeightSite(1, MatrixType.UP), removed=(0,), bias="position")
    carried = [{"bias": torch.ones(8, 48)}]
    with applied_interventions(model, [edit], tensors=carried, anatomy=Anatomy.of(model, family=OPT)):
        for rows in (slice(0, 1), slice(0, 2)):
            with pytest.raises(InterventionError, match="one after another, so that none has a position; prune with"):
                logits(model, rows)


def test_what_a_module_saw_is_told_apart_by_sequence_or_refused() -> None:
    flat = torch.arange(48.0).view(16, 3)
    assert torch.equal(by_sequence(flat, IDS), flat.view(2, 8, 3))
    assert torch.equal(by_sequence(flat.view(2, 8, 3), IDS), flat.view(2, 8, 3))
    with pytest.raises(AnatomyError, match=r"shape \(15, 3\), which are not those of 2 x 8 tokens"):
        by_sequence(flat[:15], IDS)
