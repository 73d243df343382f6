"""A recipe's place is known by what the base holds there, whatever is attached, and though it cannot be read as a matrix."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

from strop.anatomy import Family, MatrixType, Spelling, Stream, StreamSite, WeightSite
from strop.checkpoints import identify
from strop.errors import BaseMismatchError, InterventionError, UneditableWeightError
from strop.interventions import (
    Head,
    LowRankEdit,
    Positions,
    RankReduction,
    SingularValuePruning,
    applied_interventions,
    attach_interventions,
)
from strop.recipe import Recipe, applied, attach

IDS = torch.arange(1, 9)[None]
EDITS = (
    RankReduction(WeightSite(1, MatrixType.UP), rank_fraction=0.25),
    RankReduction(WeightSite(0, MatrixType.QUERY), rank_fraction=0.1),
)
PRUNING = SingularValuePruning(WeightSite(1, MatrixType.DOWN), removed=(0, 3), bias="mean")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


@pytest.fixture
def llama(tiny: Callable[..., nn.Module]) -> Any:
    return tiny("llama")


# What is attached does not count


STATES = LowRankEdit(StreamSite(1), "loreft", rank=2, positions=Positions.parse("f1+l1"))


@pytest.mark.parametrize("trainable", [False, True])
def test_a_recipe_of_a_model_with_something_attached_is_that_of_the_base(trainable: bool, llama: Any) -> None:
    both = [*EDITS, PRUNING, STATES]
    before, identity = Recipe.of(llama, both), identify(llama)
    drawn = STATES.initial_tensors((32, 32), generator=torch.Generator().manual_seed(0))
    bias = {"bias": torch.ones(32)}
    first = attach_interventions(llama, EDITS)
    second = attach_interventions(llama, [PRUNING, STATES], tensors=[bias, drawn], trainable=trainable)
    assert identify(llama) == identity
    assert Recipe.of(llama, both).matrices == before.matrices
    before.check(llama)
    with pytest.raises(InterventionError, match="attached to this model already; detach it before factors"):
        before.with_factors(llama)
    second.detach()
    first.detach()
    assert identify(llama) == identity


def test_another_base_is_told_apart_though_something_is_attached(llama: Any) -> None:
    recipe, other = Recipe.of(llama, EDITS), copy.deepcopy(llama)
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    with applied(llama, recipe), applied_interventions(other, EDITS):
        recipe.check(llama)
        with pytest.raises(BaseMismatchError, match="layer 1 up is not the matrix the recipe was made for"):
            recipe.check(other)


def test_a_head_that_was_put_on_does_not_count(tiny_classifier: Callable[..., nn.Module]) -> None:
    model: Any = tiny_classifier("roberta").to(torch.bfloat16)
    identity = identify(model)
    head = Head.of(model, ("no", "yes"))
    other = head.with_tensors({name: own + 1 for name, own in head.tensors.items()})
    attachment = attach_interventions(model, [], head=other)
    assert identify(model) == identity
    attachment.detach()
    assert identify(model) == identity


# Weights that cannot be read


class Int8Linear(nn.Module):
    """What a quantised Linear looks like from outside."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().max() / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, states: Tensor) -> Tensor:
        return states @ (self.weight.to(states.dtype) * self.scale).T


def quantised(model: Any) -> Any:
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, Int8Linear(child))
    model.hf_quantizer = type("Quantizer", (), {"quantization_config": None})()
    return model


@pytest.mark.parametrize("stream", list(Stream))
def test_hidden_states_of_a_quantised_model_are_edited(
    stream: Stream, tiny: Callable[..., nn.Module], tmp_path: Path
) -> None:
    model = quantised(tiny("llama"))
    plain = logits(model)
    edit = LowRankEdit(StreamSite(1, stream), "loreft", rank=2, positions=Positions.parse("all"))
    drawn = edit.initial_tensors((32, 32), init="paper", generator=torch.Generator().manual_seed(0))
    recipe = Recipe.of(model, [edit], tensors=[drawn])
    writer = (
        model.model.layers[1].self_attn.o_proj if stream is Stream.ATTENTION else model.model.layers[1].mlp.down_proj
    )
    assert recipe.matrices[0].shape == (32, writer.in_features)
    assert recipe.matrices[0].dtype == "int8"
    recipe.save(tmp_path / "edit")
    loaded = Recipe.load(tmp_path / "edit")
    assert loaded == recipe
    for trainable in (False, True):
        attachment = attach(model, loaded, trainable=trainable)
        assert not torch.allclose(logits(model), plain, atol=1e-3)
        attachment.detach()
        assert torch.equal(logits(model), plain)
    for name, wrong in (("weight", torch.ones_like(writer.weight)), ("scale", writer.scale * 2)):
        own = getattr(writer, name)
        setattr(writer, name, wrong)
        with pytest.raises(BaseMismatchError, match="is not the matrix the recipe was made for: its fingerprint"):
            recipe.check(model)
        setattr(writer, name, own)
    recipe.check(model)


def test_weights_of_a_quantised_model_are_left_alone(tiny: Callable[..., nn.Module]) -> None:
    model = quantised(tiny("llama"))
    with pytest.raises(UneditableWeightError, match="is quantised"):
        Recipe.of(model, EDITS)
    with pytest.raises(UneditableWeightError, match="is quantised"):
        attach_interventions(model, EDITS)


def test_hidden_states_of_a_block_with_experts_are_known_by_the_whole_block() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model: Any = MixtralForCausalLM(
        MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=3, vocab_size=99)
    ).eval()
    down = Spelling("mlp.experts", parameter="down_proj", experts="stacked")
    family = Family("Mixtral", ("mixtral",), "model.layers", {MatrixType.DOWN: down})
    edit = LowRankEdit(StreamSite(1), "loreft", rank=2, positions=Positions.parse("all"))
    drawn = edit.initial_tensors((32, 32), init="paper", generator=torch.Generator().manual_seed(0))
    recipe = Recipe.of(model, [edit], family=family, tensors=[drawn])
    assert recipe.matrices[0].shape[0] == 32
    plain = logits(model)
    with applied(model, recipe, family=family):
        assert not torch.allclose(logits(model), plain, atol=1e-3)
        recipe.check(model, family=family)
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[2, 0, 0] += 1
    with pytest.raises(BaseMismatchError, match="is not the matrix the recipe was made for: its fingerprint"):
        recipe.check(model, family=family)
