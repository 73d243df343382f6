"""What a user would do instead of the edit: the best constant answer, and examples in the base model's prompt.

They are measured once, after the choice is made and proved, on the test examples the choice was measured on.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError, reason_in
from strop.progress import SILENT, Progress
from strop.proving.assignment import Assignment
from strop.proving.deadline import UNHURRIED, Foresight
from strop.proving.prompted import prompted_scorer
from strop.proving.prove import Measurement
from strop.runs import RunResult
from strop.scoring import ClassScorer, Evaluation, Scorer, compare
from strop.statistics import Answer, Comparison, MostSaid, Rival, Rivals
from strop.statistics.metrics import measure
from strop.tasks import Example, GenerateSettings, Task
from strop.tasks.examples import gold_of
from strop.tasks.extraction import is_right, spelled_alike

SHOT_COUNTS = (1, 5)
"""How many train rows are put before a prompt."""
SHARE_OF_RUN = 0.1
"""Most that all prompts with examples may cost, as a share of the tokens the run has read; beyond it a sample is asked."""
MOST_SAMPLED, FEWEST_SAMPLED = 500, 200
"""Examples of such a sample."""


@dataclasses.dataclass(frozen=True)
class MeasuredRivals:
    """The rivals of a choice, and what it took to measure them."""

    rivals: Rivals
    passes: int = 0
    """How often examples were read."""
    tokens: int = 0
    """Tokens read."""

    def added_to(self, result: RunResult) -> RunResult:
        """Return a run's figures with them, what they took included."""
        cost = result.cost
        cost = dataclasses.replace(cost, evaluations=cost.evaluations + self.passes, tokens=cost.tokens + self.tokens)
        return dataclasses.replace(result, rivals=self.rivals or None, cost=cost)


def measure_rivals(
    given: Assignment,
    measured: Measurement,
    test: Scorer | ClassScorer,
    *,
    test_limit: int | None,
    run_tokens: int,
    seed: int = 0,
    progress: Progress = SILENT,
    foresight: Foresight = UNHURRIED,
) -> MeasuredRivals:
    """Measure a choice's rivals on the model as it is; none where no answer is right or wrong.

    Args:
        given: what the choice was about.
        measured: what test said of it.
        test: what that was measured with.
        test_limit: most test examples, as it was measured on.
        run_tokens: read by the run so far.
        seed: of a sample of test examples, and of the intervals.
        progress: told of each batch.
        foresight: of a budget that holds this too; what there is no time for is left out.
    """
    examples = given.task.examples("test", limit=test_limit)
    free = free_rivals(given.task, examples, measured.base, measured.edited, tokenizer=given.tokenizer, seed=seed)
    if measured.edited.correct is None:
        return MeasuredRivals(free)
    if isinstance(test, ClassScorer):
        reasons = {f"shots_{count}": "a classifier reads no examples in a prompt." for count in SHOT_COUNTS}
        return MeasuredRivals(dataclasses.replace(free, skipped=reasons))
    most_tokens = int(run_tokens * SHARE_OF_RUN / max(len(SHOT_COUNTS), 1))
    own = measured.prompt.tokens_per_request if measured.prompt is not None else test.tokens_per_request
    asked = _Asked(given, test_limit, measured.edited, own, most_tokens, seed, foresight)
    found, skipped, passes, tokens = dict(free.measured), {}, 0, 0
    for count in SHOT_COUNTS:
        name = f"shots_{count}"
        try:
            scorer, rows = asked.scorer(count)
            progress.start(f"measuring the base with {count} example{'s'[: count > 1]} in the prompt", scorer.steps)
            found[name] = asked.rival(scorer, rows, scorer.evaluate(progress=progress))
        except _NotMeasuredError as reason:
            skipped[name] = str(reason)
            continue
        except Exception as error:  # a choice that is made and measured is not lost for want of its rivals
            skipped[name] = f"measuring it failed: {type(error).__name__}: {reason_in(error)}."
            continue
        passes, tokens = passes + 1, tokens + scorer.tokens
    return MeasuredRivals(dataclasses.replace(free, measured=found, skipped=skipped), passes, tokens)


def free_rivals(
    task: Task,
    examples: Sequence[Example],
    base: Evaluation,
    edited: Evaluation,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> Rivals:
    """Return what costs no pass: the best constant answer, and the answer that base and edited model give most often.

    Args:
        task: the examples' task.
        examples: that were scored.
        base: of the model as it was, on these examples.
        edited: of the model with a recipe applied.
        tokenizer: says which answers begin alike, where only their first token is scored.
        seed: of the interval.
    """
    if edited.correct is None:
        return Rivals()
    answers = {"base": most_said(base), "edited": most_said(edited, base=base)}
    known = task.splits.get("train") or task.splits.get("select")
    return Rivals(
        measured={"constant": _constant(task, known, examples, edited, tokenizer, seed)} if known else {},
        answers={name: said for name, said in answers.items() if said is not None},
    )


def most_said(evaluation: Evaluation, *, base: Evaluation | None = None) -> MostSaid | None:
    """Return the answer a model gives most often; None where it answers nothing, or all that is known of it is a blank.

    Where answers are compared token by token their first one is known, which may be the space that all of them begin with.

    Args:
        evaluation: of the model.
        base: of the model before an edit, on the same examples, where that is to be compared.
    """
    given = collections.Counter(answer for answer in evaluation.said or () if answer is not None)
    if not given or evaluation.wanted is None:
        return None
    answer, times = given.most_common(1)[0]
    if isinstance(answer, str) and not answer.strip():
        return None
    before = None if base is None or base.said is None else base.said.count(answer) / base.count
    return MostSaid(answer, times / evaluation.count, evaluation.wanted.count(answer) / evaluation.count, before)


class _NotMeasuredError(Exception):
    """Why a rival is not measured, in a sentence."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """The test examples, to be asked with others before them."""

    given: Assignment
    test_limit: int | None
    edited: Evaluation
    edited_tokens_per_request: float
    most_tokens: int
    seed: int
    foresight: Foresight

    def scorer(self, count: int) -> tuple[Scorer, NDArray[np.int64]]:
        """Return what scores the examples, or a sample of them, with `count` others before each, and their indices."""
        task = self.given.task
        if task.shots is not None and task.shots.count == count:
            raise _NotMeasuredError("the task's own prompts have as many, so that is the base itself.")
        try:
            examples = task.with_shots(count).examples("test", limit=self.test_limit)
            room = self.foresight.room_for_rival(count)
            if room < min(FEWEST_SAMPLED, len(examples)):
                raise _NotMeasuredError("there was no time left for it; give a longer --time-limit.")
            order = np.random.default_rng(self.seed).permutation(len(examples))
            rows = np.sort(order[: math.floor(min(MOST_SAMPLED, room))])
            scorer = prompted_scorer(self.given, [examples[row] for row in rows])
            each = scorer.tokens / len(rows)
            within = math.floor(min(max(int(self.most_tokens / each), FEWEST_SAMPLED), room))
            if within < len(rows) or within >= len(examples) > len(rows):
                rows = np.sort(order[:within])
                scorer = prompted_scorer(self.given, [examples[row] for row in rows])
        except TaskError as error:
            raise _NotMeasuredError(str(error)) from None
        return scorer, rows

    def rival(self, scorer: Scorer, rows: NDArray[np.int64], found: Evaluation) -> Rival:
        """Return what was found, beside the edited model on the same examples."""
        edited = self.edited.of_examples(rows.tolist())
        return Rival(
            accuracy=found.accuracy,
            loss=found.mean_loss,
            count=found.count,
            comparison=_paired(found, edited, self.seed),
            tokens_per_request=scorer.tokens_per_request,
            edited_tokens_per_request=self.edited_tokens_per_request,
            macro=found.figures.macro,
        )


def _paired(rival: Evaluation, edited: Evaluation, seed: int) -> Comparison:
    """Compare the edited model with a rival on the same examples, whose answers may be cut into other tokens."""
    return compare(dataclasses.replace(rival, tokens=edited.tokens), edited, seed=seed)


def _constant(
    task: Task,
    known: Sequence[Example],
    examples: Sequence[Example],
    edited: Evaluation,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> Rival:
    """Return what the answer scores on some examples that is the best one to always give on those that are known."""
    if task.labels is not None:
        return _constant_label(task, known, edited, seed)
    if task.score == "first_token" and tokenizer is not None:
        known, examples = (_first_tokens(some, tokenizer) for some in (known, examples))
    given = collections.Counter(answer for example in known for answer in _answers(example, task.generate))
    answer = given.most_common(1)[0][0]
    right = np.array([_is_answered(example, answer, task.generate) for example in examples])
    always = dataclasses.replace(edited, correct=right)
    compared = _paired(always, edited, seed)
    return Rival(always.accuracy, None, always.count, compared, answer=answer, macro=always.figures.macro)


def _answers(example: Example, settings: GenerateSettings | None) -> list[Answer]:
    """Return all constant answers that would be right: the text, and the place of the choice."""
    if settings is not None:
        return [spelled_alike(gold_of(example, settings, where=f"row {example.row}"), settings)]
    if example.choices is not None:
        return [example.answer, example.choices.index(example.answer) + 1]
    return [example.answer]


def _first_tokens(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Return examples whose answers, where there are no choices, are cut to what their first token spells."""
    return [
        example
        if example.choices is not None
        else dataclasses.replace(
            example, answer=str(tokenizer.decode(tokenizer(example.answer, add_special_tokens=False)["input_ids"][:1]))
        )
        for example in examples
    ]


def _is_answered(example: Example, answer: Answer, settings: GenerateSettings | None) -> bool:
    if settings is not None:
        return is_right(str(answer), gold_of(example, settings, where=f"row {example.row}"), settings)
    return answer in _answers(example, None)


def _constant_label(task: Task, known: Sequence[Example], edited: Evaluation, seed: int) -> Rival:
    labels = task.labels
    assert labels is not None  # who calls has seen to it
    assert edited.actual is not None
    actual = np.array([labels.target(example.answer) for example in known])
    merits = [
        measure(labels.metric, actual, np.full_like(actual, label), labels.count) for label in range(labels.count)
    ]
    label = int(np.argmax(merits))
    predicted = np.full_like(edited.actual, label)
    always = dataclasses.replace(edited, correct=predicted == edited.actual, predicted=predicted)
    compared = _paired(always, edited, seed)
    return Rival(
        always.accuracy,
        None,
        always.count,
        compared,
        answer=labels.names[label],
        metric=always.metric,
        macro=always.figures.macro,
    )
