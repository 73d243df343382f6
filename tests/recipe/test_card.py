"""The card that travels with a recipe."""

import dataclasses
from pathlib import Path

import pytest
from tests.fixtures.recipes import EDITS, PROVENANCE
from torch import nn

from strop.recipe import Recipe


def test_the_card_names_base_edits_figures_and_how_to_use_it(llama: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(llama, EDITS, provenance=PROVENANCE)
    base = dataclasses.replace(recipe.base, id="someone/their-model", revision="0123abc")
    dataclasses.replace(recipe, base=base).save(tmp_path / "facts")
    card = (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")
    for part in (
        "base_model: someone/their-model",
        "# someone/their-model for small-facts",
        "(LlamaForCausalLM)",
        "- layer 1 up: rank reduction to rank 8 (25.0 % kept)",
        "- layer 2 value head 1: rank reduction to rank 4",
        "On 400 held-out examples the accuracy went from 0.0521 to 0.1312",
        "a gain of 0.0791 (95 % interval 0.05 to 0.11",
        "40 examples fixed, 8 broken",
        'strop.load("someone/their-model")',
    ):
        assert part in card, part
    assert card.startswith("---\n")


def test_the_card_says_how_the_gain_is_spread(llama: nn.Module, tmp_path: Path) -> None:
    averages = {
        "count": 19, "measure": "accuracy", "macro_base": 0.05, "macro_edited": 0.071, "macro_gain": 0.021,
        "macro_ci95": [0.011, 0.034], "sentence": "Most of the gain is in 1 of 19 categories (city); 5 fall.",
    }  # fmt: skip
    Recipe.of(llama, EDITS, provenance={**PROVENANCE, "categories": averages}).save(tmp_path / "facts")
    card = (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")
    assert f"{averages['sentence']} The average accuracy over categories went from 0.05 to 0.071" in card
    assert "a gain of 0.021 (95 % interval 0.011 to 0.034)" in card


@pytest.mark.parametrize("base", ["smollm2-135m", "/home/someone/model", "./model", "models/mine", "LlamaForCausalLM"])
def test_the_card_gives_no_hub_id_to_a_base_that_has_none(base: str, llama: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(llama, EDITS)
    recipe = dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, id=base))
    recipe.save(tmp_path / "facts")
    card = (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in card
    called = "model" if base in ("/home/someone/model", "./model") else base  # the way to a folder is left out
    assert f"# {called}, edited" in card
    assert "held-out" not in card


PRICE = {
    "drift": {"kl": 0.6, "changed": 0.4, "perplexity": 9.0, "perplexity_ratio": 1.74, "texts": 64, "tokens": 3072},
    "continuations": [{"prompt": "The `name` of", "base": "the rose", "edited": "of of of"}],
}


def card_with(llama: nn.Module, tmp_path: Path, **provenance: object) -> str:
    Recipe.of(llama, EDITS, provenance={**PROVENANCE, **provenance}).save(tmp_path / "facts")
    return (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_the_gain_is_paid_with_and_shows_it(llama: nn.Module, tmp_path: Path) -> None:
    card = card_with(llama, tmp_path, price=PRICE)
    assert "On other text it changes 2 of 5 words the base would say: for this task only (drift 0.60 nats" in card
    assert "- `The 'name' of`\n  - before: `the rose`\n  - after: `of of of`\n" in card


def test_the_card_says_why_a_price_is_not_known(llama: nn.Module, tmp_path: Path) -> None:
    card = card_with(llama, tmp_path, price={"drift": None, "reason": "A classifier predicts no next token."})
    assert "on other text is not known. A classifier predicts no next token.\n" in card


def test_the_card_claims_no_gain_that_may_be_chance(llama: nn.Module, tmp_path: Path) -> None:
    assert "No gain is shown" not in card_with(llama, tmp_path / "sure")
    unsure = {**PROVENANCE["comparison"], "ci95": [-0.01, 0.11]}
    assert "broken). No gain is shown: the interval holds 0.\n" in card_with(llama, tmp_path, comparison=unsure)


def test_the_card_names_rivals_that_were_not_measured(llama: nn.Module, tmp_path: Path) -> None:
    card = card_with(llama, tmp_path, rivals={"shots_5": {"skipped": "row 3 does not fit."}})
    assert "- The base with 5 of the train rows in the prompt: not measured, row 3 does not fit.\n" in card
