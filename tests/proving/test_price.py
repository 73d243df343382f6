"""What a choice costs: measured of every choice, in every file, and a bound that can keep a candidate from being chosen."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import Notes

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.checkpoints import identify
from strop.errors import UsageError
from strop.interventions import RankReduction, applied_interventions
from strop.proving import DriftFromBase, DriftText, Guard, RunOptions, RunOutcome
from strop.proving.measures import Base
from strop.recipe import Recipe
from strop.runs import Price, RunResult
from strop.scoring import DriftScorer
from strop.searching import PrunePlan, SearchPlan, prune, search
from strop.tasks import Task
from strop.training import TrainPlan, train

SEARCH = SearchPlan(strategy="exhaustive", layers=(2,), rank_fractions=(0.02, 0.2))
PLANS: dict[str, tuple[Callable[..., RunOutcome], Any]] = {
    "search": (search, SEARCH),
    "prune": (prune, PrunePlan(fractions=(0.02, 0.05))),
    "train": (train, TrainPlan(rank=2, layers=(1,), epochs=2, batch_size=6, accumulate=1, learning_rate=0.02)),
}
PROSE = " ".join(f"The city of Lyon{number} is in France." for number in range(200))


@pytest.mark.parametrize("command", PLANS)
def test_every_choice_has_its_price_in_the_result_the_recipe_and_its_card(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, command: str
) -> None:
    run, plan = PLANS[command]
    model = answering()
    found = run(model, small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    price = found.result.price
    assert price is not None
    assert price.drift is not None
    assert found.recipe.interventions
    assert price.drift.kl > 0
    assert (price.drift.texts, price.drift.source) == (4, "base")
    assert len(price.continuations) == 2
    assert RunResult.read(tmp_path / "run" / "result.json").price == price
    recipe = Recipe.load(tmp_path / "run" / "recipe")
    assert Price.from_json(recipe.provenance["price"]) == price
    assert f"On other text it {price.drift.verdict} ({price.drift})." in (tmp_path / "run/recipe/README.md").read_text()
    anatomy = Anatomy.of(model)
    scorer = DriftScorer(model, DriftText().texts(model, small_tokenizer, anatomy=anatomy), anatomy=anatomy)
    with applied_interventions(model, recipe.interventions, anatomy=anatomy, tensors=recipe.tensors):
        again = scorer.read()
    assert (again.kl, again.changed) == pytest.approx((price.drift.kl, price.drift.changed), rel=1e-4)


def test_the_price_of_no_edit_is_nothing(answering: Callable[..., Any], small_tokenizer: Any, task: Task) -> None:
    plan = dataclasses.replace(SEARCH, rank_fractions=(0.02,))
    found = search(answering(), small_tokenizer, task, plan, RunOptions(guards=[Guard(DriftFromBase(), 0.0)]))
    assert found.result.interventions == ()
    assert found.result.price is not None
    assert found.result.price.drift is not None
    assert found.result.price.drift.identical
    assert all(each.base == each.edited for each in found.result.price.continuations)


def test_two_runs_give_the_same_bytes(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    prices = []
    for name in ("one", "other"):
        search(answering(), small_tokenizer, task, SEARCH, RunOptions(out=tmp_path / name))
        prices.append(json.loads((tmp_path / name / "result.json").read_text())["price"])
    assert prices[0] == prices[1]
    whole, other = ((tmp_path / name / "recipe" / "recipe.json").read_bytes() for name in ("one", "other"))
    assert whole == other


def test_a_bound_on_drift_refuses_what_is_too_far_and_chooses_the_best_that_is_near(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    free = search(answering(), small_tokenizer, task, SEARCH)
    assert free.result.price is not None
    assert free.result.price.drift is not None
    bound = free.result.price.drift.kl * 0.9
    notes = Notes()
    options = RunOptions(guards=[Guard(DriftFromBase(), bound)], progress=notes)
    kept = search(answering(), small_tokenizer, task, SEARCH, options)
    (reading,) = kept.result.guards
    assert (reading.name, reading.base, reading.bound_unit, reading.holds) == ("drift", 0.0, "nats", True)
    assert kept.recipe.interventions != free.recipe.interventions
    assert kept.result.price is not None
    assert kept.result.price.drift is not None
    assert kept.result.price.drift.kl == pytest.approx(reading.edited, rel=1e-9)
    assert any(
        line.startswith("refused by the guard on drift: ")
        and line.endswith(f" nats per token where {bound:g} are allowed")
        for line in notes.lines
    )


def test_the_base_reads_the_texts_once_for_a_guard_and_the_price(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], DriftScorer.__init__

    def counting(self: DriftScorer, *positional: Any, **named: Any) -> None:
        made.append(self)
        real(self, *positional, **named)

    monkeypatch.setattr(DriftScorer, "__init__", counting)
    search(answering(), small_tokenizer, task, SEARCH, RunOptions(guards=[Guard(DriftFromBase(), 1e9)]))
    assert len(made) == 1


@pytest.mark.parametrize("command", PLANS)
def test_what_a_guard_has_read_of_the_choice_is_its_price(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    read, real = [], DriftScorer.read

    def counting(self: DriftScorer) -> Any:
        read.append(real(self))
        return read[-1]

    monkeypatch.setattr(DriftScorer, "read", counting)
    run, plan = PLANS[command]
    options = RunOptions(guards=[Guard(DriftFromBase(), 1e9)], out=tmp_path / "run")
    found = run(answering(), small_tokenizer, task, plan, options)
    assert found.result.price is not None
    assert found.result.price.drift is not None
    assert found.result.price.drift in read
    assert len(read) == len({drift.kl for drift in read})  # nothing was read twice


def test_in_a_narrow_dtype_the_price_is_of_the_edits_as_they_are_applied(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = TrainPlan(method="spectrum", epochs=2, batch_size=6, accumulate=1)
    model = answering().to(torch.bfloat16)
    found = train(model, small_tokenizer, task, plan, RunOptions(guards=[Guard(DriftFromBase(), 1e9)]))
    assert found.recipe.interventions
    assert found.result.price is not None
    anatomy = Anatomy.of(model)
    scorer = DriftScorer(model, DriftText().texts(model, small_tokenizer, anatomy=anatomy), anatomy=anatomy)
    with applied_interventions(model, found.recipe.interventions, anatomy=anatomy, tensors=found.recipe.tensors):
        assert found.result.price.drift == scorer.read()


def test_a_users_text_takes_the_place_of_the_models(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text(PROSE)
    text = DriftText.read(tmp_path / "notes.txt")
    options = RunOptions(drift_text=text, guards=[Guard.parse("drift:9", drift_text=text)], out=tmp_path / "run")
    found = search(answering(), small_tokenizer, task, SEARCH, options)
    assert found.result.price is not None
    assert found.result.price.drift is not None
    assert found.result.price.drift.source == "notes.txt"
    assert found.result.guards[0].edited == pytest.approx(found.result.price.drift.kl, rel=1e-9)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plan"]["drift_text"] == text.fingerprint


def test_a_users_text_that_is_too_short_is_refused_before_the_run(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    options = RunOptions(out=tmp_path / "run", drift_text=DriftText("short.txt", "Lyon"))
    with pytest.raises(UsageError, match=r"short\.txt has \d tokens, and windows of 32 are read"):
        search(answering(), small_tokenizer, task, SEARCH, options)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_measured_says_why_and_spoils_no_run(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DriftText, "check", lambda *_, **__: None)  # which refuses it before the run
    options = RunOptions(out=tmp_path / "run", drift_text=DriftText("short.txt", "Lyon"))
    found = search(answering(), small_tokenizer, task, SEARCH, options)
    price = RunResult.read(tmp_path / "run" / "result.json").price
    assert price == found.result.price
    assert price is not None
    assert price.drift is None
    assert price.reason.startswith("short.txt has ")
    assert "On other text" not in (tmp_path / "run" / "recipe" / "README.md").read_text()


def test_a_result_of_an_older_version_has_no_price(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    content = search(answering(), small_tokenizer, task, SEARCH).result.to_json()
    del content["price"]
    assert RunResult.from_json(content).price is None


def test_drift_is_bounded_in_nats(tmp_path: Path) -> None:
    guard = Guard.parse("drift:0.05")
    assert (guard.measure.name, guard.bound, guard.measure.bound_unit) == ("drift", 0.05, "nats")
    with pytest.raises(UsageError, match=r"'drift:5%': drift is bounded in nats per token, such as drift:0\.05"):
        Guard.parse("drift:5%")
    with pytest.raises(UsageError, match=r"no\.txt cannot be read: No such file"):
        DriftText.read(tmp_path / "no.txt")
    with pytest.raises(UsageError, match="blank is empty"):
        DriftText("blank", " \n")


def test_drift_grows_with_what_an_edit_takes(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    read = DriftFromBase().reader(Base(model, small_tokenizer, anatomy, identify(model).fingerprint))
    found = []
    for fraction in (0.9, 0.5, 0.1):
        with applied_interventions(model, [RankReduction(WeightSite(1, MatrixType.UP), fraction)], anatomy=anatomy):
            found.append(read())
    assert read() == 0.0
    assert found == sorted(found)
    assert found[0] > 0


def test_a_choice_is_not_lost_where_measuring_its_price_fails(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory\nand much more")

    monkeypatch.setattr(DriftScorer, "read", failing)
    found = search(answering(), small_tokenizer, task, SEARCH)
    assert found.recipe.interventions
    assert found.result.price == Price(None, reason="Measuring it failed: RuntimeError: out of memory.")
