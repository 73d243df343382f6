"""A search by spectra alone: what it tries is what the published code would, and a text decides, or the model's own."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.runs import Notes, figures_of, reduction_of

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite, editable_shapes
from strop.errors import UsageError
from strop.proving import RunOptions, RunOutcome, Trial
from strop.searching import SearchPlan
from strop.searching.laser import search
from strop.searching.laser.data_free import spectral_candidates
from strop.tasks import Task

FREE = SearchPlan(strategy="data-free", top_matrices=3)
TEXT = "\n".join(f"The city of Lyon is in France on day {day}, and 12 x 12 = 144." for day in range(150))


def site(layer: int) -> WeightSite:
    return WeightSite(layer, MatrixType.UP)


def rank_and_ratio_by_hand(weight: Any) -> tuple[int, float]:
    """As the code of laserRMT has it, in NumPy."""
    values = np.linalg.svd(weight.detach().double().numpy(), compute_uv=False)
    sigma = (np.percentile(values, 75) - np.percentile(values, 25)) / 1.349
    threshold = sigma * (1 + math.sqrt(min(weight.shape) / max(weight.shape)))
    above = values > threshold
    return int(above.sum()), float(values[above].sum() / values[~above].sum())


def test_the_matrices_with_least_signal_come_first_each_cut_at_its_threshold() -> None:
    """By hand: the thresholds of 4 x 4 are 2 · IQR / 1.349, and these leave 2, 1 and 2 values."""
    spectra = {
        site(0): torch.tensor([9.0, 8.0, 1.0, 0.5]),  # IQR 7.375 -> 10.9: nothing is above
        site(1): torch.tensor([9.0, 2.0, 1.5, 1.0]),  # IQR 2.375 -> 3.5: 9 over 4.5
        site(2): torch.tensor([5.0, 4.5, 2.0, 1.9]),  # IQR 2.65 -> 3.9: 9.5 over 3.9
        site(3): torch.tensor([9.0, 2.0, 1.5, 1.0]),  # as in layer 1
    }
    shapes = dict.fromkeys(spectra, (4, 4))
    found = spectral_candidates(spectra, shapes, top_matrices=12)
    assert [(edit.site.layer, edit.rank((4, 4))) for edit in found.candidates] == [(1, 1), (3, 1), (2, 2)]
    assert found.left_out == "of 4 matrices, 1 with nothing above the threshold left out"
    two = spectral_candidates(spectra, shapes, top_matrices=2, rank_fractions=(0.75, 0.5, 0.6))
    assert [(edit.site.layer, edit.rank((4, 4))) for edit in two.candidates] == [(1, 2), (1, 3), (3, 2), (3, 3)]


def test_what_tells_nothing_of_signal_and_noise_is_left_out_and_said() -> None:
    spectra = {
        site(0): torch.zeros(4),
        site(1): torch.full((4,), 2.0),
        site(2): torch.tensor([3.0, math.nan, 1.0, 0.5]),
        site(3): torch.tensor([3.0, 0.0, 0.0, 0.0]),
    }
    found = spectral_candidates(spectra, dict.fromkeys(spectra, (4, 6)), top_matrices=12)
    # all but the last: of rank one, what is cut is nothing
    assert [(edit.site.layer, edit.rank((4, 6))) for edit in found.candidates] == [(3, 1)]
    assert found.left_out == ("of 4 matrices, 2 with nothing above the threshold and 1 with nothing below it left out")
    zero = spectral_candidates({site(0): torch.zeros(4)}, {site(0): (4, 6)}, top_matrices=1)
    assert zero.candidates == ()


def test_a_labelled_task_decides_between_what_the_spectra_propose(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    shapes = editable_shapes(model, Anatomy.of(model), layers=None, matrix_types=None, stack=None)
    truth = {place: rank_and_ratio_by_hand(Anatomy.of(model).read_weight(model, place)) for place in shapes}
    lowest = sorted(truth, key=lambda place: truth[place][1])[:3]
    found = search(model, small_tokenizer, task, FREE)
    tried = {(edit.site, edit.rank(shapes[edit.site])) for trial in found.trials if (edit := reduction_of(trial))}
    assert tried == {(place, truth[place][0]) for place in lowest}
    best = max(found.trials, key=lambda trial: trial.merit)
    assert list(found.recipe.interventions) == [edit for edit in (reduction_of(best),) if edit is not None]


def test_what_helps_most_on_the_passages_of_a_text_is_taken_until_nothing_does(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    """Against whole passes over each passage, and as greedily as any search."""
    model = tiny("llama", max_position_embeddings=512, num_hidden_layers=2)
    task = strop.text_task(TEXT, name="days.txt")
    plan = dataclasses.replace(FREE, compose="greedy", max_edits=2, layers=(0, 1), top_matrices=4)
    notes = Notes()
    found = search(model, small_tokenizer, task, plan, RunOptions(progress=notes))
    assert found.result.task.name == "days.txt"
    assert found.result.base["test"].accuracy is None
    assert "edit 1: reading spectra" in notes.stages
    losses = []
    for recipe in (None, found.recipe):
        own = []
        for example in task.examples("test"):
            ids = small_tokenizer(example.prompt + example.answer)["input_ids"]
            first = len(small_tokenizer(example.prompt)["input_ids"])
            with torch.no_grad(), strop.applied(model, recipe or found.recipe.__class__.of(model, [])):
                log_p = model(torch.tensor([ids])).logits[0, first - 1 : -1].double().log_softmax(-1)
            own.append(-float(log_p[range(len(ids) - first), ids[first:]].mean()))
        losses.append(float(np.mean(own)))
    before, after = found.result.base["test"], found.result.edited["test"]
    assert (before.loss, after.loss) == pytest.approx(losses, rel=1e-3)
    assert found.result.comparison["test"].gain == pytest.approx(before.loss - after.loss, rel=1e-4, abs=1e-7)
    rounds = {trial.key.round for trial in found.trials}
    assert len(found.recipe.interventions) in (max(rounds), max(rounds) - 1)
    assert math.log(before.perplexity or 0) == pytest.approx(before.loss, rel=0.05)


def test_without_a_task_it_goes_by_what_the_model_writes_and_after_an_interruption_on(
    tiny: Callable[..., Any],
    small_tokenizer: Any,
    gone_on: Callable[..., tuple[RunOutcome, list[Trial]]],
    tmp_path: Path,
) -> None:
    def run(options: RunOptions) -> RunOutcome:
        model = tiny("llama", max_position_embeddings=512, num_hidden_layers=2)
        return search(model, small_tokenizer, plan=FREE, options=options)

    again, _ = gone_on(run, 2)
    whole = run(RunOptions(out=tmp_path / "whole"))
    assert figures_of(again)["edited"] == figures_of(whole)["edited"]
    assert again.result.task.name == "own-text"
    assert again.result.task.counts == {"select": 4, "test": 4}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["task"]["name"] == "own-text"
    assert again.result.price is not None


def test_a_strategy_that_asks_a_task_says_what_to_give(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    for strategy in ("gradient", "exhaustive"):
        with pytest.raises(
            UsageError, match=f"^Strategy '{strategy}' needs a task: give one, or a text .* or search with 'data-free'"
        ):
            search(tiny("llama"), small_tokenizer, plan=SearchPlan(strategy=strategy))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Task own-text is scored by loss alone, and objective 'macro'"):
        search(tiny("llama"), small_tokenizer, plan=dataclasses.replace(FREE, objective="macro"))


def test_a_price_needs_a_gradient_to_be_added_to() -> None:
    with pytest.raises(UsageError, match="price_weight goes with strategy 'gradient': 'data-free' asks no gradient"):
        SearchPlan(strategy="data-free", price_weight=0.5)
