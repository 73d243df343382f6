"""What is asked of a model once and kept in its run's folder: other wordings, and what removed components say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.runs import state_of
from tests.fixtures.task_files import WriteTask

import strop
from strop.analysis import RunAnalyses, facts_in_words, paraphrase_robustness, removed_components
from strop.anatomy import MatrixType, WeightSite
from strop.errors import TaskError, UsageError
from strop.findings import read_paraphrases, read_removed
from strop.interventions import RankReduction, SpectrumScaling
from strop.recipe import Recipe
from strop.tasks import Task, load_task

SITE = WeightSite(2, MatrixType.UP)
ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"The city of {name}{number} is in", "answer": f" {answer}", "subject": f"{name}{number}",
        "others": [f"{name}{number} is a city in", f"{name}{number} lies in"][: number % 3],
    }
    for number in range(6)
    for name, answer in (("Lyon", "France"), ("Curitiba", "Brazil"))
]  # fmt: skip


@pytest.fixture
def worded(write_task: WriteTask) -> Task:
    return load_task(write_task(ROWS, paraphrases="others", group="subject"))


@pytest.fixture
def reduced(answering: Callable[..., Any]) -> tuple[Any, Recipe]:
    model = answering()
    return model, Recipe.of(model, [RankReduction(SITE, 0.25)])


def test_facts_are_asked_in_every_wording_before_and_after(
    reduced: tuple[Any, Recipe], small_tokenizer: Any, worded: Task, tmp_path: Path
) -> None:
    """As the evaluation of paraphrases counts them, on the bare model and with the recipe on."""
    model, recipe = reduced
    before = state_of(model)
    facts = facts_in_words(model, small_tokenizer, worded, recipe, run=tmp_path)
    assert state_of(model) == before
    assert read_paraphrases(tmp_path) == facts
    examples = worded.examples("test")
    assert [own.row for own in facts] == [example.row for example in examples]
    assert [len(own.after) for own in facts] == [1 + len(example.paraphrases) for example in examples]
    plain = strop.scoring.evaluate_paraphrases(model, small_tokenizer, worded)
    with strop.applied(model, recipe):
        edited = strop.scoring.evaluate_paraphrases(model, small_tokenizer, worded)
    others = [(b, a) for own in facts for b, a in zip(own.before[1:], own.after[1:], strict=True)]
    assert np.mean(others, axis=0) == pytest.approx([plain.accuracy, edited.accuracy])
    assert np.mean([all(own.before) for own in facts]) == pytest.approx(plain.consistent)
    assert np.mean([all(own.after) for own in facts]) == pytest.approx(edited.consistent)
    found = paraphrase_robustness(facts)
    assert found is not None
    assert found.wordings == plain.count


def test_without_paraphrases_there_is_nothing_to_ask(
    reduced: tuple[Any, Recipe], small_tokenizer: Any, task: Task
) -> None:
    with pytest.raises(TaskError, match="has no paraphrases; name their column"):
        facts_in_words(reduced[0], small_tokenizer, task, reduced[1])


def test_what_fits_a_choice_is_known_before_a_model_is_asked(
    reduced: tuple[Any, Recipe], worded: Task, task: Task, laser: Recipe
) -> None:
    both = RunAnalyses.fitting(worded, reduced[1])
    assert (both.worded, both.site, both.left_out) == (True, SITE, ())
    lowest = min(laser.interventions, key=lambda own: own.rank_fraction)  # type: ignore[attr-defined]
    assert RunAnalyses.fitting(worded, laser).site == lowest.site
    alone = RunAnalyses.fitting(task, reduced[1])
    assert alone
    assert alone.left_out == (f"Task {task.name} has no paraphrases, so no fact was asked in other words.",)
    scaled = Recipe.of(reduced[0], [SpectrumScaling(SITE)], tensors=[{"change": torch.zeros(32)}])
    neither = RunAnalyses.fitting(task, scaled)
    assert not neither
    assert neither.left_out[1] == "The run reduces no matrix to a lower rank, so no removed components were asked."


def test_removed_components_are_asked_alone(
    reduced: tuple[Any, Recipe], small_tokenizer: Any, worded: Task, tmp_path: Path
) -> None:
    """Against answers of a model whose weight was written by hand, and cosines of raw embeddings."""
    model, recipe = reduced
    before = state_of(model)
    found = removed_components(model, small_tokenizer, worded, recipe, shares=(0.5, 1.0), run=tmp_path)
    assert state_of(model) == before
    assert read_removed(tmp_path) == found
    assert (found.matrix, found.rank, found.full_rank) == ("layer 2 up", 8, 32)
    base, fixed = strop.evaluate(model, small_tokenizer, worded), worded.examples("test")
    with strop.applied(model, recipe):
        edited = strop.evaluate(model, small_tokenizer, worded)
    assert base.correct is not None
    assert edited.correct is not None
    chosen = [example for example, b, a in zip(fixed, base.correct, edited.correct, strict=True) if a and not b]
    assert found.fixed == bool(chosen)
    chosen = chosen or list(fixed)
    assert found.examples == len(chosen)
    weight = model.model.layers[2].mlp.up_proj.weight
    kept = weight.detach().clone()
    u, sigma, vh = torch.linalg.svd(kept.double(), full_matrices=False)
    rows = model.get_input_embeddings().weight.detach().double()
    tokens = max(len(small_tokenizer(example.answer)["input_ids"]) for example in chosen)
    for place, components in ((0, slice(16, 32)), (1, slice(0, 32))):
        with torch.no_grad():
            weight.copy_((u[:, components] * sigma[components]) @ vh[components])
        said = strop.scoring.greedy_continuations(model, small_tokenizer, chosen, tokens=min(tokens, 5))
        near = []
        for example, answer in zip(chosen, said, strict=True):
            right = small_tokenizer(example.answer, add_special_tokens=False)["input_ids"][:5]
            other = small_tokenizer(answer, add_special_tokens=False)["input_ids"][: len(right)]
            a, b = (rows[ids].mean(0) - rows.mean(0) for ids in (right, other))
            near.append(float(a @ b / (a.norm() * b.norm())))
        assert found.shares[place].similarity == pytest.approx(np.mean(near), abs=1e-6)
        assert [own.said[place] for own in found.answers] == [answer.strip() for answer in said[:24]]
    with torch.no_grad():
        weight.copy_(kept)


def test_what_cannot_be_asked_is_refused(
    answering: Callable[..., Any], small_tokenizer: Any, worded: Task, laser: Recipe
) -> None:
    model = answering()
    with pytest.raises(UsageError, match=r"The recipe reduces layer 2 up, layer 1 value: name one of them as site\."):
        removed_components(model, small_tokenizer, worded, laser)
    with pytest.raises(UsageError, match=r"above 0 and at most 1, ascending, not \(0\.5, 0\.1\)"):
        removed_components(model, small_tokenizer, worded, laser, site=SITE, shares=(0.5, 0.1))
    scaled = Recipe.of(model, [SpectrumScaling(SITE)], tensors=[{"change": torch.zeros(32)}])
    with pytest.raises(UsageError, match="The recipe reduces no matrix to a lower rank"):
        removed_components(model, small_tokenizer, worded, scaled)
    parted = Recipe.of(model, [RankReduction(SITE, 0.1, subspaces=4)])
    with pytest.raises(
        UsageError, match=r"up was parted into 4 subspaces, .*: give a recipe of a search with --subspaces 1\."
    ):
        removed_components(model, small_tokenizer, worded, parted)
