"""What a user would do instead: measured after the choice, on its test examples, and told of in the result."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fixtures.runs import figures_of

import strop
from strop.progress import Progress
from strop.proving import RunOptions, free_rivals, rivals
from strop.report import gain_sentence
from strop.runs import RunResult
from strop.scoring import Evaluation, Scorer
from strop.searching import SearchPlan, search
from strop.statistics import Rivals
from strop.tasks import Example, GenerateSettings, Labels, Task
from strop.training import TrainPlan, train

pytestmark = pytest.mark.rivals
PLAN = SearchPlan(strategy="exhaustive", layers=(1,), rank_fractions=(0.1, 0.5))
NAMES = ["constant", "shots_1", "shots_5"]


def found_by(model: Any, tokenizer: Any, task: Task, plan: SearchPlan = PLAN, **options: Any) -> Rivals:
    found = search(model, tokenizer, task, plan, RunOptions(**options)).result.rivals
    assert found is not None
    return found


def test_every_rival_is_measured_on_the_test_examples(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    result = search(answering(), small_tokenizer, task, PLAN).result
    assert result.rivals is not None
    assert list(result.rivals.measured) == NAMES
    edited = result.edited["test"]
    for count in (1, 5):
        own = strop.evaluate(answering(), small_tokenizer, task.with_shots(count), split="test")
        rival = result.rivals.measured[f"shots_{count}"]
        assert rival.loss == pytest.approx(own.mean_loss, rel=1e-5)
        assert (rival.accuracy, rival.count) == (own.accuracy, own.count)
        assert edited.accuracy == pytest.approx(rival.accuracy + rival.comparison.gain)
        prompts = [
            small_tokenizer("\n".join([*(s.prompt + s.answer for s in e.shots), e.prompt]))["input_ids"]
            for e in task.with_shots(count).examples("test")
        ]
        assert rival.tokens_per_request == pytest.approx(np.mean([len(ids) for ids in prompts]))
        plain = [len(small_tokenizer(e.prompt)["input_ids"]) for e in task.examples("test")]
        assert rival.edited_tokens_per_request == pytest.approx(np.mean(plain))


@pytest.mark.parametrize(("known", "answer"), [("train", " France"), ("select", " Brazil")])
def test_the_constant_answer_is_the_most_frequent_of_train_or_of_select_where_there_is_no_train(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, known: str, answer: str
) -> None:
    """Not of test: whoever asks the test examples which it is has seen them."""
    answers = {"train": [" Brazil"] * 2 + [" France"] * 3, "select": [" France"] * 2 + [" Brazil"] * 3}
    splits = {
        split: tuple(Example(f"{split} {number} is in", own) for number, own in enumerate(answers[split]))
        for split in ("train", "select")
    }
    kept = {known: splits[known], "select": splits["select"], "test": task.splits["test"]}
    rival = found_by(answering(), small_tokenizer, dataclasses.replace(task, splits=kept)).measured["constant"]
    assert rival.answer == answer
    assert rival.accuracy == np.mean([example.answer == answer for example in task.splits["test"]])
    assert rival.loss is None


def evaluation(right: list[bool], **fields: Any) -> Evaluation:
    size = len(right)
    return Evaluation("exact", np.ones(size), np.ones(size, dtype=np.int64), np.array(right), **fields)


def constant_of(task: Task) -> tuple[object, float | None]:
    examples = task.examples("test")
    scored = evaluation([True] * len(examples), said=("x",) * len(examples), wanted=("x",) * len(examples))
    found = free_rivals(task, examples, scored, scored).measured["constant"]
    assert found.comparison.gain == pytest.approx(1 - (found.accuracy or 0))
    return found.answer, found.accuracy


def test_the_constant_choice_is_a_text_or_a_place_whichever_train_has_more_often() -> None:
    def example(answer: str, *choices: str) -> Example:
        return Example("q", answer, choices)

    placed = (example("b", "a", "b"), example("d", "c", "d"), example("e", "e", "f"))
    named = (example("yes", "yes", "no"), example("yes", "no", "yes"), example("no", "yes", "no"))
    test = (example("y", "x", "y"), example("yes", "yes", "no"))
    for known, expected in ((placed, (2, 0.5)), (named, ("yes", 0.5))):
        assert constant_of(Task("t", "choice", {"train": known, "test": test})) == expected


def test_the_constant_of_generated_answers_is_compared_as_they_are() -> None:
    rows = tuple(Example(f"q{n}", f"it is {answer}") for n, answer in enumerate(["14", "14.0", "3"]))
    settings = GenerateSettings(extract=r"[\d.]+", match="number")
    assert constant_of(Task("t", "generate", {"train": rows, "test": rows}, settings)) == ("14", 2 / 3)


def test_the_constant_label_is_the_best_by_the_tasks_metric() -> None:
    """F1 of the second of two labels is best for whoever always says the second, however rare it is."""
    labels = Labels(("no", "yes"), "f1")
    rows = tuple(Example(f"text {n}", "yes" if n < 2 else "no") for n in range(6))
    actual = np.array([labels.target(row.answer) for row in rows])
    scored = Evaluation(
        "label", np.ones(6), np.ones(6, dtype=np.int64), np.ones(6, dtype=bool), actual=actual, predicted=actual,
        labels=labels,
    )  # fmt: skip
    task = Task("t", "label", {"train": rows, "test": rows}, labels=labels)
    rival = free_rivals(task, rows, scored, scored).measured["constant"]
    assert (rival.answer, rival.metric) == ("yes", ("f1", 0.5))
    assert rival.comparison.gain == pytest.approx(0.5)


def test_an_edit_that_learns_the_majority_class_is_named() -> None:
    task = Task("t", "exact", {"train": tuple(Example(f"{n}", " yes" if n % 3 else " no") for n in range(30)),
                               "test": tuple(Example(f"t{n}", " yes" if n % 3 else " no") for n in range(60))})  # fmt: skip
    wanted = tuple(example.answer for example in task.examples("test"))
    before = tuple(" no" if n % 5 else " yes" for n in range(60))
    base, edited = (
        evaluation([own == right for own, right in zip(said, wanted, strict=True)], said=said, wanted=wanted)
        for said in (before, (" yes",) * 60)
    )
    found = free_rivals(task, task.examples("test"), base, edited)
    assert found.collapse is not None
    assert (found.collapse.answer, found.collapse.share, found.collapse.base_share) == (" yes", 1.0, 0.2)
    assert found.collapse.right_share == pytest.approx(2 / 3)
    assert found.measured["constant"].is_as_good
    assert not found.measured["constant"].is_better
    assert free_rivals(task, task.examples("test"), edited, edited).collapse is None


def test_a_blank_that_all_answers_begin_with_is_no_answer_to_speak_of() -> None:
    task = Task(
        "t",
        "exact",
        {"train": (Example("1 + 1 =", " 2"),), "test": tuple(Example(f"{n} + 1 =", " 3") for n in range(9))},
    )
    blank = evaluation([True] * 9, said=(" ",) * 9, wanted=(" ",) * 9)
    assert free_rivals(task, task.examples("test"), blank, blank).answers == {}


def test_no_gain_is_claimed_of_a_task_whose_answers_were_shuffled(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    claimed = []
    for seed in range(8):
        splits = {
            name: tuple(
                dataclasses.replace(example, answer=examples[other].answer)
                for example, other in zip(examples, np.random.default_rng(seed).permutation(len(examples)), strict=True)
            )
            for name, examples in task.splits.items()
        }
        result = search(answering(), small_tokenizer, dataclasses.replace(task, splits=splits), PLAN).result
        compared = result.comparison["test"]
        claimed.append(compared.ci95[0] > 0)
        said = gain_sentence(compared, in_accuracy=True)
        assert claimed[-1] or not result.interventions or said.endswith(("holds 0.", "worse than before."))
    assert sum(claimed) <= 1


def test_no_rivals_where_nothing_is_right_or_wrong(tiny: Callable[..., Any], small_tokenizer: Any, task: Task) -> None:
    other = dataclasses.replace(task, score="perplexity")
    assert search(tiny("llama"), small_tokenizer, other, PLAN).result.rivals is None


def test_a_task_without_train_has_no_examples_to_show_and_says_so(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    bare = dataclasses.replace(task, splits={name: task.splits[name] for name in ("select", "test")})
    found = found_by(answering(), small_tokenizer, bare)
    assert list(found.measured) == ["constant"]
    for name in ("shots_1", "shots_5"):
        assert found.skipped[name].startswith("Task small-facts has no train split to take shots from;")


def test_prompts_that_do_not_fit_the_model_are_skipped_with_the_reason(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    found = found_by(answering(max_position_embeddings=40), small_tokenizer, task)
    assert list(found.measured) == ["constant", "shots_1"]
    assert "do not fit the model's context of 40" in found.skipped["shots_5"]


def test_a_rival_that_fails_does_not_cost_the_run_its_choice(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Scorer.evaluate

    def failing(self: Scorer, **options: Any) -> Evaluation:
        if self.tokens_per_request > 20:
            raise RuntimeError("out of memory.\nTry a smaller batch.")
        return real(self, **options)

    monkeypatch.setattr(Scorer, "evaluate", failing)
    result = search(answering(), small_tokenizer, task, PLAN).result
    assert result.rivals is not None
    assert list(result.rivals.measured) == ["constant", "shots_1"]
    assert result.rivals.skipped == {"shots_5": "measuring it failed: RuntimeError: out of memory."}
    assert RunResult.from_json(result.to_json()) == result


def test_the_outcome_names_those_that_do_as_well(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    found = search(answering(), small_tokenizer, task, PLAN)
    assert found.result.rivals is not None
    as_good = found.result.rivals.as_good
    assert as_good
    assert str(found).endswith(f"\nnot surely better than: {', '.join(as_good)}")
    assert "nats per token (" in str(found).splitlines()[-2]


def test_the_base_with_as_many_examples_as_the_tasks_own_is_not_measured_twice(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    result = search(answering(), small_tokenizer, task.with_shots(1), PLAN).result
    assert result.rivals is not None
    assert "the base itself" in result.rivals.skipped["shots_1"]
    assert "shots_5" in result.rivals.measured
    assert (result.task.shots, result.to_json()["task"]["shots"]) == (1, 1)
    assert RunResult.from_json(result.to_json()) == result


def test_what_would_cost_too_much_is_measured_on_a_sample_of_the_same_rows(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found_by(answering(), small_tokenizer, task)
    monkeypatch.setattr(rivals, "MOST_SAMPLED", 10)
    monkeypatch.setattr(rivals, "FEWEST_SAMPLED", 6)
    monkeypatch.setattr(rivals, "SHARE_OF_RUN", 1e9)
    assert found_by(answering(), small_tokenizer, task) == whole
    asked: list[tuple[int, ...]] = []
    real = Scorer.__init__

    def watched(self: Scorer, model: Any, tokenizer: Any, examples: Any, *rest: Any, **options: Any) -> None:
        asked.append(tuple(example.row for example in examples if example.shots))
        real(self, model, tokenizer, examples, *rest, **options)

    monkeypatch.setattr(Scorer, "__init__", watched)
    monkeypatch.setattr(rivals, "SHARE_OF_RUN", 1e-9)
    found = found_by(answering(), small_tokenizer, task)
    rows = [rows for rows in asked if len(rows) == 6]
    assert rows[0] == rows[1]  # the same rows for both counts
    for name in ("shots_1", "shots_5"):
        assert found.measured[name].count == 6
    indices = [[e.row for e in task.examples("test")].index(row) for row in rows[0]]
    for count in (1, 5):
        own = strop.evaluate(answering(), small_tokenizer, task.with_shots(count), split="test").of_examples(indices)
        assert found.measured[f"shots_{count}"].loss == pytest.approx(own.mean_loss, rel=1e-5)


def test_what_they_cost_is_part_of_the_runs_cost(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    found, without = (
        search(answering(), small_tokenizer, task, PLAN, RunOptions(rivals=wanted)) for wanted in (True, False)
    )
    assert without.result.rivals is None
    assert "rivals" not in without.result.to_json()
    assert found.result.cost.evaluations == without.result.cost.evaluations + 2
    shown = [task.with_shots(count).examples("test") for count in (1, 5)]
    read = [Scorer(answering(), small_tokenizer, own, "exact", share_prefix=True).tokens for own in shown]
    assert found.result.cost.tokens == without.result.cost.tokens + sum(read)
    assert found.recipe.interventions == without.recipe.interventions
    assert "rivals" in found.recipe.provenance
    assert "rivals" not in without.recipe.provenance


def test_they_are_looked_at_only_once_the_choice_is_proved(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    class Stages(Progress):
        seen: list[str] = []  # noqa: RUF012

        def start(self, stage: str, total: int) -> None:
            self.seen.append(stage)

    search(answering(), small_tokenizer, task, PLAN, RunOptions(progress=Stages()))
    assert Stages.seen[-4:] == [
        "measuring on held-out examples",
        "measuring drift from the base",
        "measuring the base with 1 example in the prompt",
        "measuring the base with 5 examples in the prompt",
    ]
    assert not any("in the prompt" in stage for stage in Stages.seen[:-2])


def test_a_finished_run_is_read_back_with_the_same_rivals(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(answering(), small_tokenizer, task, PLAN, RunOptions(out=tmp_path / "run"))
    monkeypatch.setattr(Scorer, "evaluate", lambda *_, **__: pytest.fail("measured anew"))
    again = search(answering(), small_tokenizer, task, PLAN, RunOptions(out=tmp_path / "run", resume=True))
    assert again.result == first.result
    assert figures_of(again)["rivals"] == first.result.to_json()["rivals"]
    card = (tmp_path / "run" / "recipe" / "README.md").read_text()
    assert card.count("of the train rows in the prompt: accuracy") == 2
    assert "- Always answering ` " in card


def test_a_classifier_has_a_constant_rival_only(
    tiny_classifier: Callable[..., Any], small_tokenizer: Any, cities: Callable[..., Path]
) -> None:
    task = strop.load_task(cities())
    plan = TrainPlan(rank=2, layers=(1,), epochs=1, batch_size=16, accumulate=1, select_limit=8)
    found = train(tiny_classifier("llama"), small_tokenizer, task, plan).result.rivals
    assert found is not None
    assert list(found.measured) == ["constant"]
    assert found.measured["constant"].answer in ("france", "brazil")
    assert set(found.skipped) == {"shots_1", "shots_5"}
    assert set(found.answers) == {"base", "edited"}
