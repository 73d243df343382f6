"""A family that is given is held to the model, once, and refused where running the model shows something else."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.anatomy.reading.models import FAMILIES, T, decision, make
from torch import nn

from strop.anatomy import Anatomy, Spelling
from strop.errors import AnatomyError

Tiny = Callable[..., Any]


def swapped(model: Any) -> Any:
    known = Anatomy.of(model).family
    spelled = {T.QUERY: Spelling("self_attn.k_proj"), T.KEY: Spelling("self_attn.q_proj")}
    return dataclasses.replace(known, name="mine", matrices={**known.matrices, **spelled})


def test_queries_and_keys_that_are_swapped_are_refused_with_what_was_seen(tiny: Tiny) -> None:
    model = tiny("llama", num_key_value_heads=4)
    with pytest.raises(AnatomyError) as caught:
        Anatomy.of(model, family=swapped(model))
    assert str(caught.value) == (
        "The family mine does not describe this LlamaForCausalLM: layer 0 query head 0: row 4 of "
        "model.layers.0.self_attn.k_proj, said to be its, serves as key of head 0; correct the spelling's path, packing or packed."
    )


def test_a_family_that_holds_was_given_and_checked() -> None:
    model = make("opt")
    anatomy = Anatomy.of(model, family=FAMILIES["opt"])
    assert anatomy.origin == "given by a description and checked by forward passes"
    assert anatomy.reading.found.told == {T.QUERY, T.KEY, T.VALUE}
    assert anatomy.family == FAMILIES["opt"]


def test_a_family_is_checked_once(tiny: Tiny) -> None:
    model, calls = tiny("llama"), []
    family = dataclasses.replace(Anatomy.of(model).family, name="mine")
    model.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    first = Anatomy.of(model, family=family)
    seen = len(calls)
    assert seen > 0
    assert Anatomy.of(model, family=family) == first
    assert len(calls) == seen
    with pytest.raises(AnatomyError, match="The family other does not describe"):
        Anatomy.of(model, family=dataclasses.replace(family, name="other", block_returns="tuple"))


def test_blocks_that_do_not_go_on_from_hidden_states_alone_are_refused(tiny: Tiny) -> None:
    model = tiny("llama")
    family = dataclasses.replace(Anatomy.of(model).family)  # another one, as a person would give it
    kept: list[torch.Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _module, _arguments, output: kept.append(output))
    model.model.layers[2].mlp.register_forward_pre_hook(lambda _module, arguments: (arguments[0] + kept[-1],))
    with pytest.raises(
        AnatomyError, match=r"do not give what the whole pass gives; describe the family with resumes: false\."
    ):
        Anatomy.of(model, family=family)
    whole = dataclasses.replace(family, resumes=False)
    assert Anatomy.of(model, family=whole).family == whole


def test_what_cannot_be_run_is_taken_as_given_and_says_so(tiny: Tiny) -> None:
    with torch.device("meta"):
        empty = type(tiny("llama"))(tiny("llama").config)
    for model, family, why in (
        (
            decision(),
            dataclasses.replace(FAMILIES["gpt2"], blocks="encoder.h"),
            "DecisionTransformerModel reads neither",
        ),
        (empty, Anatomy.of(tiny("llama")).family, "model.embed_tokens is on the meta device"),
    ):
        anatomy = Anatomy.of(model, family=family)
        assert anatomy.origin.startswith(f"given by a description; no forward pass could check it: {why}")
        assert isinstance(anatomy.blocks(model), nn.ModuleList)
