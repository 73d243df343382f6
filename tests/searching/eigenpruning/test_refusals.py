"""What a pruning refuses, and what it leaves behind where it fails: the model as it was."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import state_of

from strop.anatomy import MatrixType
from strop.errors import (
    DecompositionError,
    NotFiniteError,
    SiteError,
    TaskError,
    UneditableWeightError,
    UsageError,
)
from strop.interventions import attachments_of
from strop.progress import Progress
from strop.proving import RunOptions
from strop.recipe import Recipe
from strop.scoring import Scorer
from strop.searching import Effects, PrunePlan, measure_effects
from strop.searching.eigenpruning import prune
from strop.tasks import Example, Task

T = MatrixType
QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=2)
BIASES = ["none", "mean", "position"]


@pytest.mark.first(4)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("moment", ["scoring a step", "measuring", "asking the gradient"])
def test_a_pruning_that_fails_leaves_the_model_as_it_was(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    laser: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    bias: Any,
    moment: str,
) -> None:
    model = answering().train()
    model.get_input_embeddings().weight.requires_grad_(False)
    before = state_of(model)
    real, calls = Scorer.evaluate, []

    def failing(self: Scorer, **arguments: Any) -> Any:
        calls.append(len(attachments_of(self.model)))
        if (moment == "scoring a step" and calls[-1] == 2) or (moment == "measuring" and calls.count(0) == 2):
            raise KeyboardInterrupt
        return real(self, **arguments)

    class FailingInTheSecondRound(Progress):
        inside = False

        def start(self, stage: str, total: int) -> None:
            self.inside = stage == "round 2: asking the gradient" and moment == "asking the gradient"

        def advance(self, steps: int = 1) -> None:
            if self.inside:
                raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "evaluate", failing)
    with pytest.raises(KeyboardInterrupt):
        prune(
            model,
            small_tokenizer,
            even,
            dataclasses.replace(QUICK, bias=bias),
            options=RunOptions(after=laser, progress=FailingInTheSecondRound()),
        )
    assert state_of(model) == before
    assert attachments_of(model) == ()


@pytest.mark.parametrize("bias", ["none", "mean"])
def test_a_gradient_that_is_no_number_is_refused_with_the_remedy(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, bias: Any
) -> None:
    model = answering()
    before = state_of(model)

    def overflowing(_module: Any, _inputs: Any, output: Any) -> Any:
        return None if torch.is_inference_mode_enabled() else output * math.nan

    handle = model.model.norm.register_forward_hook(overflowing)
    with pytest.raises(DecompositionError, match=r"not finite for any matrix.*--dtype float32"):
        prune(model, small_tokenizer, task, dataclasses.replace(QUICK, bias=bias))
    handle.remove()
    assert state_of(model) == before


def test_a_gradient_that_is_no_number_any_more_ends_the_rounds_and_keeps_the_earlier_ones(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_round = prune(answering(), small_tokenizer, task, dataclasses.replace(QUICK, iterate=1))
    asked = []

    def once(*arguments: Any, **settings: Any) -> Any:
        asked.append(settings["stage"])
        found = measure_effects(*arguments, **settings)
        if len(asked) == 1:
            return found
        return {site: Effects(e.loss_change * math.nan, e.score * math.nan) for site, e in found.items()}

    monkeypatch.setattr("strop.searching.asking.measure_effects", once)
    found = prune(answering(), small_tokenizer, task, dataclasses.replace(QUICK, iterate=9))
    assert len(asked) == 2
    assert found.recipe.interventions == one_round.recipe.interventions


def test_a_model_whose_weights_hold_nan_is_refused_by_the_first_row_that_shows_it(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(
        NotFiniteError, match=r"^row \d+ .*: the model's probabilities are not finite; .* fetch its weights"
    ):
        prune(model, small_tokenizer, task, QUICK)


def lone(task: Task) -> Task:
    return dataclasses.replace(task, splits={**task.splits, "train": task.splits["train"][:1]})


def uneven(task: Task, split: str) -> Task:
    longer = (*task.splits[split], Example("The city and the city of Lyon is in", " France"))
    return dataclasses.replace(task, splits={**task.splits, split: longer})


@pytest.mark.parametrize(
    ("change", "settings", "error", "said"),
    [
        (lone, {"counterfactual": "roll"}, UsageError, r"holds only one: take two examples.*--counterfactual mean"),
        (None, {"counterfactual": "roll", "effect_examples": 1}, UsageError, "holds only one: take two examples"),
        *(
            (lambda task, split=split: uneven(task, split), {"bias": "position"}, UsageError,
             r"one length, and these have \d+ to \d+ tokens: take bias 'mean' \(--bias mean\)")
            for split in ("train", "select", "test")
        ),
        (lambda task: uneven(task, "train"), {"counterfactual": "pairs"}, TaskError, "it has no counterfactual; give"),
        (None, {"layers": (7,)}, SiteError, "layers 0 to 2"),
        (lambda task: dataclasses.replace(task, splits={**task.splits, "test": ()}), {}, TaskError, "has no test split"),
    ],
    ids=["roll of one", "roll of a sample of one", "uneven train", "uneven select", "uneven test", "no pairs",
         "no layer", "no split"],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_a_folder_is_made(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    tmp_path: Path,
    change: Callable[[Task], Task] | None,
    settings: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    task = change(even) if change is not None else even
    with pytest.raises(error, match=said):
        prune(
            answering(),
            small_tokenizer,
            task,
            dataclasses.replace(QUICK, **settings),
            options=RunOptions(out=tmp_path / "run"),
        )
    assert not (tmp_path / "run").exists()


def test_matrices_that_are_tied_are_refused(answering: Callable[..., Any], small_tokenizer: Any, task: Task) -> None:
    model = answering()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(UneditableWeightError, match="tied"):
        prune(model, small_tokenizer, task, QUICK)
