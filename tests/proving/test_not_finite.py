"""Candidates whose probabilities are no numbers: they win nothing and end nothing; a base of that kind is refused."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import reduction_of

from strop.anatomy import MatrixType
from strop.errors import NotFiniteError
from strop.interventions import Positions, attachments_of
from strop.proving import Guard, RunOptions, TaskAccuracy
from strop.scoring import ClassScorer, Scorer, evaluate
from strop.searching import PrunePlan, SearchPlan, prune, search
from strop.tasks import Example, Labels, Task, load_task
from strop.training import TrainPlan, train

SEARCH = SearchPlan(strategy="exhaustive", matrix_types=(MatrixType.UP, MatrixType.DOWN), rank_fractions=(0.1, 0.5))
PRUNE = PrunePlan(fractions=(0.02, 0.1), iterate=2)
TRAIN = TrainPlan(
    rank=2, layers=(1,), positions=Positions(1, 1), epochs=2, batch_size=6, accumulate=1, learning_rate=0.02
)


@pytest.fixture
def overflowing() -> Iterator[Callable[..., Any]]:
    """Let what leaves a model's last norm be NaN where its edits are of some kind, as after an overflow in float16."""
    handles = []

    def spoil(model: Any, when: Callable[[list[Any]], bool]) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            edits = [edit for attachment in attachments_of(model) for edit in attachment.interventions]
            return output * math.nan if torch.is_inference_mode_enabled() and when(edits) else None

        handles.append(model.model.norm.register_forward_hook(hook))
        return model

    yield spoil
    for handle in handles:
        handle.remove()


def test_candidates_that_overflow_are_refused_and_the_search_goes_on(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, overflowing: Callable[..., Any], tmp_path: Path
) -> None:
    plain = search(answering(), small_tokenizer, task, SEARCH)
    best = plain.recipe.interventions[0]
    model = overflowing(answering(), lambda edits: best in edits)
    found = search(model, small_tokenizer, task, SEARCH, RunOptions(out=tmp_path / "run"))
    (refused,) = [trial for trial in found.trials if reduction_of(trial) == best]
    assert (refused.accuracy, math.isnan(refused.loss), refused.merit) == (None, True, (-math.inf, -math.inf))
    assert best not in found.recipe.interventions
    others = {reduction_of(trial): trial.merit for trial in plain.trials if reduction_of(trial) != best}
    assert {reduction_of(t): t.merit for t in found.trials if reduction_of(t) != best} == others
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "refused, for what it makes of the model is no number: row " in log
    json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=pytest.fail)
    again = search(model, small_tokenizer, task, SEARCH, RunOptions(out=tmp_path / "run", resume=True))
    assert again.result == found.result


@pytest.mark.parametrize(("method", "plan"), [(search, SEARCH), (prune, PRUNE), (train, TRAIN)])
def test_where_every_candidate_overflows_nothing_is_chosen(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    overflowing: Callable[..., Any],
    method: Any,
    plan: Any,
) -> None:
    found = method(overflowing(answering(), bool), small_tokenizer, task, plan)
    assert found.recipe.interventions == ()
    assert found.result.base == found.result.edited
    assert any(math.isnan(trial.loss) for trial in found.trials)


def test_a_guard_does_not_hold_for_an_edit_that_overflows_on_its_text(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, overflowing: Callable[..., Any]
) -> None:
    model, reading = answering(), []
    overflowing(model, lambda edits: bool(edits) and bool(reading))

    class Watched(TaskAccuracy):
        def reader(self, *given: Any, **named: Any) -> Any:
            real = super().reader(*given, **named)

            def read() -> float:
                reading.append(1)
                try:
                    return float(real())
                finally:
                    reading.clear()

            return read

    found = search(model, small_tokenizer, task, SEARCH, RunOptions(guards=(Guard(Watched(task), 0.5),)))
    assert found.recipe.interventions == ()
    assert found.result.base == found.result.edited


def test_a_base_that_overflows_is_refused_before_anything_is_tried(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, overflowing: Callable[..., Any], tmp_path: Path
) -> None:
    model = overflowing(answering(), lambda edits: not edits)
    for method, plan in ((search, SEARCH), (prune, PRUNE), (train, TRAIN)):
        with pytest.raises(
            NotFiniteError, match=r"^row \d+ \(prompt '.*'\): the model's probabilities are not finite; load"
        ):
            method(model, small_tokenizer, task, plan)


SAID = "row 3 (prompt 'Item 2 is'): the model's probabilities are not finite; load it in float32 or bfloat16"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("score", ["exact", "first_token", "choice", "generate", "perplexity"])
def test_every_score_refuses_probabilities_that_are_no_numbers(
    tiny: Callable[..., Any], small_tokenizer: Any, score: Any, value: float
) -> None:
    model, choices = tiny("llama"), (" red", " 144") if score == "choice" else None
    with torch.no_grad():
        model.model.norm.weight[3] = value
    examples = [Example(f"Item {n} is", " red", choices, row=n + 1) for n in range(2, 5)]
    with pytest.raises(NotFiniteError) as refused:
        Scorer(model, small_tokenizer, examples, score).evaluate()
    assert str(refused.value) == f"{SAID}, or fetch its weights again."


def test_only_the_rows_that_overflow_are_named(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama").to(torch.float16)
    examples = [Example(f"Item {n} is", " red", row=n + 1) for n in range(4)]
    marked = small_tokenizer(" 2").input_ids[-1]
    with torch.no_grad():
        model.model.embed_tokens.weight[marked] = math.inf
    with pytest.raises(NotFiniteError) as refused:
        Scorer(model, small_tokenizer, examples, "exact").evaluate()
    assert str(refused.value) == f"{SAID}."
    assert Scorer(model, small_tokenizer, examples[:2], "exact").evaluate().count == 2


def test_a_text_that_overflows_while_it_is_written_is_refused(
    tiny: Callable[..., Any], small_tokenizer: Any, write_task: Callable[..., Path]
) -> None:
    model = tiny("llama")
    task = load_task(write_task(score="generate", generate={"max_new_tokens": 5}))
    calls: list[int] = []

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        calls.append(output.shape[1])
        return output * math.nan if calls.count(1) == 3 else None  # the third token that is read alone

    handle = model.lm_head.register_forward_hook(hook)
    with pytest.raises(
        NotFiniteError, match=r"^row \d+ \(prompt '\d+ \+ 1 ='\): the model's probabilities are not finite"
    ):
        evaluate(model, small_tokenizer, task)
    handle.remove()


def test_a_classifier_that_overflows_is_refused(tiny_classifier: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny_classifier("llama")
    with torch.no_grad():
        model.score.weight[1] = math.nan
    examples = [Example(f"Item {n} is", "a", row=n + 1) for n in range(2, 5)]
    with pytest.raises(NotFiniteError) as refused:
        ClassScorer(model, small_tokenizer, examples, Labels(("a", "b"), "accuracy")).evaluate()
    assert str(refused.value).startswith(SAID)
