"""Reading alone reaches the spelling that was written down by hand."""

from collections.abc import Callable

import pytest
import torch
from tests.conftest import TINY
from tests.fixtures.oracles import ORACLES
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from strop.anatomy import Anatomy, Family, MatrixType, read_model

Tiny = Callable[..., nn.Module]


def oracle(model_type: str) -> Family:
    (found,) = (family for family in ORACLES if model_type in family.model_types)
    return found


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_a_model_is_read_as_it_was_written_down(model_type: str, tiny: Tiny) -> None:
    model, expected = tiny(model_type), oracle(model_type)
    read = read_model(model)
    assert (read.obstacle, read.unnamed) == ("", ())
    found = read.family
    assert found.matrices == expected.matrices
    assert (found.blocks, found.block_returns, found.causal) == (
        expected.blocks,
        expected.block_returns,
        expected.causal,
    )
    assert found.positions_after_padding == expected.positions_after_padding
    assert Anatomy.of(model) == Anatomy.of(model, family=found)


def test_the_oracles_cover_every_tiny_model() -> None:
    assert sorted(TINY) == sorted(name for family in ORACLES for name in family.model_types)


def test_a_model_of_seven_billion_parameters_is_read_without_weights() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama"))
    assert sum(parameter.numel() for parameter in model.parameters()) > 6e9
    read = read_model(model)
    assert read.family.matrices == oracle("llama").matrices
    assert "meta device" in read.obstacle
    anatomy = Anatomy.of(model)
    assert (anatomy.layer_count, anatomy.hidden_size, len(anatomy.sites())) == (32, 4096, 32 * 7)
    assert set(anatomy.matrix_types) == set(MatrixType) & set(oracle("llama").matrices)
