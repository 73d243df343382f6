"""What one forward pass shows of a list of blocks."""

import pytest
import torch
from tests.anatomy.reading.models import decision, hooks_of, make, vision
from torch import nn

from strop.anatomy.reading.inputs import short_inputs
from strop.anatomy.reading.observe import Observed, observe


@pytest.mark.parametrize(
    ("name", "blocks", "returns", "causal", "calls"),
    [
        ("llama", "model.layers", "tensor", True, 1),
        ("gptj", "transformer.h", "tuple", True, 1),
        ("falcon-rw", "transformer.h", "tuple", True, 1),
        ("bloom", "transformer.h", "tuple", True, 1),
        ("opt", "model.decoder.layers", "tensor", True, 1),
        ("mixtral", "model.layers", "tensor", True, 1),
        ("mamba", "backbone.layers", "tensor", True, 1),
        ("bert", "bert.encoder.layer", "tensor", False, 1),
        ("deberta-v2", "deberta.encoder.layer", "tuple", False, 1),
        ("albert", "albert.encoder.albert_layer_groups", "tensor", False, 2),
        ("t5", "encoder.block", "tuple", False, 1),
        ("t5", "decoder.block", "tuple", True, 1),
    ],
)
def test_a_pass_shows_what_blocks_return_whether_they_see_later_tokens_and_how_often_they_run(
    name: str, blocks: str, returns: str, causal: bool, calls: int
) -> None:
    assert observe(make(name), blocks) == Observed(returns, causal, calls)


def test_half_precision_does_not_hide_what_later_tokens_do() -> None:
    for name, blocks, causal in (("bert", "bert.encoder.layer", False), ("llama", "model.layers", True)):
        assert observe(make(name, dtype=torch.bfloat16), blocks).causal is causal


def test_a_model_of_images_is_shown_one() -> None:
    assert observe(vision(), "vit.layers") == Observed("tensor", False, 1)


def test_a_model_that_reads_something_else_says_so_and_runs_on_what_it_is_given() -> None:
    model, draw = decision(), torch.Generator().manual_seed(3)
    assert observe(model, "encoder.h") == Observed(
        obstacle="DecisionTransformerModel reads neither token ids nor images, so no input could be made to look at it"
    )
    inputs = {
        "states": torch.randn(1, 4, 5, generator=draw),
        "actions": torch.randn(1, 4, 3, generator=draw),
        "rewards": torch.zeros(1, 4, 1),
        "returns_to_go": torch.randn(1, 4, 1, generator=draw),
        "timesteps": torch.arange(4)[None],
        "attention_mask": torch.ones(1, 4),
    }
    assert observe(model, "encoder.h", inputs=inputs) == Observed("tensor", True, 1)


def test_weights_that_are_not_here_are_not_computed_with() -> None:
    with torch.device("meta"):
        model = make("llama")
    seen = observe(model, "model.layers")
    assert not seen.ran
    assert seen.obstacle.startswith("model.embed_tokens is on the meta device")


def test_blocks_that_a_pass_does_not_reach_were_not_seen() -> None:
    model = make("llama")
    model.spare = nn.ModuleList([nn.Linear(2, 2)])
    assert observe(model, "spare") == Observed(obstacle="a forward pass does not reach spare")


def test_a_model_stays_as_it_was_even_where_it_fails() -> None:
    model = make("llama").train()
    before = torch.get_rng_state()
    assert observe(model, "model.layers").ran
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    seen = observe(model, "model.layers")
    assert seen == Observed(obstacle="division by zero")
    assert hooks_of(model) == 1
    assert all(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ids_are_the_same_each_time_and_mean_nothing_special() -> None:
    model = make("llama", vocab_size=6, eos_token_id=[2, 4])
    ids = short_inputs(model)["input_ids"]
    assert ids.shape == (2, 4)
    assert {*ids.flatten().tolist()} <= {3, 5}
    assert torch.equal(ids, short_inputs(model)["input_ids"])
