"""What a recipe keeps of a low-rank edit, and what it refuses."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.low_rank import (
    IDS,
    KINDS,
    PARTS,
    SIZE,
    Tiny,
    edit_of,
    every_kind,
    every_method,
    random_tensors,
    seeded,
    states_of,
)
from torch import Tensor

from strop.anatomy import Stream, StreamSite
from strop.errors import InterventionError, RecipeError
from strop.interventions import (
    EditModule,
    LowRankEdit,
    Positions,
    attach_interventions,
    intervention_from_json,
    prompt_lengths,
)
from strop.recipe import Recipe, applied


@every_kind
@pytest.mark.parametrize("stream", Stream)
def test_a_recipe_read_back_computes_the_same(
    method: str, activation: str, stream: Stream, tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    edit = edit_of(method, 6, activation=activation, subspaces=PARTS, site=StreamSite(1, stream))
    recipe = Recipe.of(model, [edit], tensors=[random_tensors(edit, 32, dtype=torch.float32)])

    def logits() -> Tensor:
        with torch.no_grad(), prompt_lengths([6]):
            return model(input_ids=IDS).logits

    plain = logits()
    with applied(model, recipe):
        expected = logits()
    assert not torch.allclose(expected, plain, atol=1e-3)
    recipe.save(tmp_path / "edit")
    read = Recipe.load(tmp_path / "edit")
    assert read == recipe
    with applied(model, read):
        assert torch.equal(logits(), expected)
    assert torch.equal(logits(), plain)


@every_method
def test_what_training_begins_with_computes_every_bit_the_same_from_a_file(
    method: str, tiny: Tiny, tmp_path: Path
) -> None:
    """A frame lies column by column in memory and a file's tensors row by row; sums must not be taken in another order."""
    model, edit = tiny("llama", hidden_size=576, num_attention_heads=9, num_key_value_heads=3), edit_of(method)
    recipe = Recipe.of(model, [edit], tensors=[edit.initial_tensors((576, 576), init="paper", generator=seeded())])
    recipe.save(tmp_path / "edit")
    states = states_of(size=576, dtype=torch.float32)
    one, other = (EditModule(edit, r.tensors[0], 576) for r in (recipe, Recipe.load(tmp_path / "edit")))
    assert torch.equal(one(states), other(states))
    assert torch.equal(one.basis_rows(), other.basis_rows())


def test_methods_and_activations_all_compute_something_else() -> None:
    """So that a method read back as another would be noticed."""
    outputs = []
    for method, activation in KINDS:
        edit = intervention_from_json(json.loads(json.dumps(edit_of(method, activation=activation).to_json((SIZE, 9)))))
        assert isinstance(edit, LowRankEdit)
        tensors = {name: own for name, own in random_tensors(edit_of("loreft")).items() if name in edit.learned_tensors}
        outputs.append(EditModule(edit, tensors, SIZE)(states_of()))
    for index, one in enumerate(outputs):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in outputs[:index]), KINDS[index]


@every_kind
def test_an_edit_is_read_back_from_its_json(method: str, activation: str) -> None:
    edits = [
        edit_of(method, 6, activation=activation, positions=Positions.parse(text), subspaces=PARTS)
        for text in ("f2+l2", "f3", "l1", "f2(+l3)", "(f2+)l3", "prompt", "all")
    ]
    for one in (*edits, dataclasses.replace(edits[0], subspaces=(), site=StreamSite(0, Stream.MLP))):
        written = json.loads(json.dumps(one.to_json((SIZE, 9))))
        assert written["parameters"] == one.parameter_count((SIZE, SIZE))
        assert intervention_from_json(written) == one


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layer": "1"}, "whole numbers"),
        ({"rank": 2.0}, "whole numbers"),
        ({"rank": True}, "whole numbers"),
        ({"stream": "residual"}, "'residual' is not a stream"),
        ({"positions": "first"}, "'first' does not name positions"),
        ({"activation": "swish"}, "activation is one of"),
        ({"activation": ["relu"]}, "cannot be read"),
        ({"subspaces": ["a"]}, "its subspaces are not names with whole numbers"),
        ({"subspaces": {"a": 1.5}}, "its subspaces are not names with whole numbers"),
        ({"subspaces": {"a": 1}}, "do not add up"),
    ],
)
def test_an_entry_that_makes_no_edit_is_refused(change: dict[str, Any], complaint: str) -> None:
    entry = edit_of().to_json((SIZE, 9))
    with pytest.raises(RecipeError) as caught:
        intervention_from_json({**entry, **change})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("missing", ["layer", "rank", "positions"])
def test_an_entry_that_lacks_a_field_is_refused_by_its_name(missing: str) -> None:
    entry = edit_of().to_json((SIZE, 9))
    del entry[missing]
    with pytest.raises(RecipeError, match=f"lacks '{missing}'"):
        intervention_from_json(entry)


def spoilt(tensors: Mapping[str, Tensor], name: str, how: str) -> dict[str, Tensor]:
    others = {key: tensor for key, tensor in tensors.items() if key != name}
    if how == "missing":
        return others
    made = {
        "longer": lambda tensor: torch.cat([tensor, tensor]),
        "narrow": lambda tensor: tensor[..., :-1],
        "a number": lambda tensor: tensor.sum(),
        "NaN": lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.nan),
        "infinite": lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.inf),
        "whole numbers": lambda tensor: tensor.long(),
    }[how]
    return {**others, name: made(tensors[name])}


@every_method
@pytest.mark.parametrize("how", ["missing", "longer", "narrow", "a number", "NaN", "infinite", "whole numbers"])
def test_tensors_that_do_not_fit_are_refused_in_a_sentence_and_nothing_stays(method: str, how: str, tiny: Tiny) -> None:
    model, edit = tiny("llama"), edit_of(method)
    tensors = random_tensors(edit, 32, dtype=torch.float32)
    for name in tensors:
        with pytest.raises(InterventionError, match=r"^layer 1 block: .*; train anew.*\.$") as caught:
            attach_interventions(model, [edit, edit], tensors=[tensors, spoilt(tensors, name, how)])
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert "generate" not in model.__dict__


def test_no_tensors_at_all_are_refused(tiny: Tiny) -> None:
    with pytest.raises(InterventionError, match=r"needs a tensor basis of shape \(4, 32\) .* is missing"):
        attach_interventions(tiny("llama"), [edit_of()])
