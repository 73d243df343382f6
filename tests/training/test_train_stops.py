"""A training that cannot go on, or need not: numbers that stop being numbers, and a patience that is over."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.proving import Journal
from strop.recipe import Recipe
from strop.tasks import load_task
from strop.training import TrainPlan
from strop.training.checkpoints import checkpoints_in
from strop.training.watch import Watch


@pytest.fixture
def loss_of_step_30(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the logits of the thirty-first step, in epoch 3, be something else."""

    def arm(value: float) -> None:
        from strop.training import objective

        real, calls = objective.logits_at, []

        def spoiled(*positional: Any, **named: Any) -> torch.Tensor:
            calls.append(1)
            logits = real(*positional, **named)
            return logits * value if len(calls) == 31 else logits

        monkeypatch.setattr(objective, "logits_at", spoiled)

    return arm


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_in_one_sentence(
    training: Any, bits: Any, tiny: Any, loss_of_step_30: Any, plan: TrainPlan, tmp_path: Path, value: float
) -> None:
    run, model = tmp_path / "run", tiny("llama")
    before = bits(model)
    loss_of_step_30(value)
    with pytest.raises(strop.StropError) as failure:
        training(plan, model=model, out=run)
    assert str(failure.value) == (
        "The loss became nan at step 31 (epoch 3); train with a lower learning rate than 0.02; the best edits so far, those "
        f"of epoch 2, are kept in {run / 'best'}."
    )
    assert bits(model) == before
    best = Recipe.load(run / "best")
    with strop.applied(model, best):
        pass
    assert best.provenance == {"epoch": 2}
    assert [path.name for path in checkpoints_in(run / "checkpoints")] == ["checkpoint-24"]
    assert not (run / "result.json").exists()


def test_the_run_goes_on_where_it_was_an_accident(
    training: Any,
    whole: Any,
    figures: Any,
    loss_of_step_30: Any,
    plan: TrainPlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = whole(plan)
    loss_of_step_30(float("nan"))
    with pytest.raises(strop.StropError, match="became nan"):
        training(plan, out=tmp_path / "run")
    monkeypatch.undo()
    again = training(plan, out=tmp_path / "run", resume=True)
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)


def test_without_anything_better_nothing_is_said_to_be_kept(
    training: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strop.training import objective

    monkeypatch.setattr(objective, "logits_at", lambda *_, **__: torch.full((4, 320), torch.nan, requires_grad=True))
    with pytest.raises(strop.StropError) as failure:
        training(dataclasses.replace(plan, precision="bfloat16"))
    assert str(failure.value) == (
        "The loss became nan at step 1 (epoch 1); train with a lower learning rate than 0.02, or in float32."
    )


@pytest.mark.parametrize("score", ["exact", "perplexity"])
def test_edits_that_are_no_numbers_at_an_epochs_end_are_never_chosen(
    training: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_task: Any, score: str
) -> None:
    """The last step's gradient overflowed, so that no loss told of it."""
    real = Watch.on_step_end

    def spoiling(self: Watch, args: Any, state: Any, control: Any, **rest: Any) -> None:
        real(self, args, state, control, **rest)
        if state.global_step == 24:
            with torch.no_grad():
                next(self._attachment.edits[0].parameters())[0, 0] = torch.nan

    monkeypatch.setattr(Watch, "on_step_end", spoiling)
    with pytest.raises(strop.StropError) as failure:
        training(plan, out=tmp_path / "run", task=load_task(written_task(score=score)))
    said = (
        r"The edits are no longer made of finite numbers after epoch 2; train with a lower .*those of epoch 1, are kept"
    )
    assert re.match(said, str(failure.value))
    assert [path.name for path in checkpoints_in(tmp_path / "run" / "checkpoints")] == ["checkpoint-12"]
    assert Recipe.load(tmp_path / "run" / "best").provenance == {"epoch": 1}


def test_training_stops_when_its_patience_is_over(
    training: Any, knowing: Any, plan: TrainPlan, tmp_path: Path, stopped_after: Any, figures: Any
) -> None:
    impatient = dataclasses.replace(plan, learning_rate=30.0, epochs=9, patience=2)
    found = training(impatient, model=knowing())
    assert [trial.key.candidate.get("epoch") for trial in found.trials] == [None, 1, 2]
    learning = training(dataclasses.replace(plan, patience=2), out=tmp_path / "learning")
    assert [trial.key.candidate.get("epoch") for trial in learning.trials] == [None, 1, 2, 3, 4]
    stopped_after(17)
    with pytest.raises(KeyboardInterrupt):
        training(impatient, model=knowing(), out=tmp_path / "run")
    again = training(impatient, model=knowing(), out=tmp_path / "run", resume=True)
    assert (figures(again), again.recipe) == (figures(found), found.recipe)
    assert "no better epoch in 2: stopping after epoch 2" in (tmp_path / "run" / "log.txt").read_text()


def test_the_count_of_patience_begins_anew_with_a_better_epoch(
    training: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([9.0, 5.0, 6.0, 4.0, 6.0, 6.0, 1.0])
    real = Journal.measure

    def measuring(self: Journal, key: Any, evaluate: Any, **settings: Any) -> Any:
        found, loss = evaluate(), next(losses)
        told = dataclasses.replace(found, loss=found.loss * 0 + loss, correct=None, score="perplexity")
        return real(self, key, lambda: told, **settings)

    monkeypatch.setattr(Journal, "measure", measuring)
    found = training(dataclasses.replace(plan, patience=2, epochs=9))
    assert [trial.key.candidate.get("epoch") for trial in found.trials] == [None, 1, 2, 3, 4, 5]
    assert found.result.edited["select"].loss == 4.0


def test_examples_that_accumulate_are_weighed_by_their_answer_tokens(
    training: Any, seen: Any, plan: TrainPlan, tmp_path: Path
) -> None:
    """Four examples at once, or two by two: the loss of a step is over all of its answer tokens."""
    rows = (
        f'{{"prompt": "{number:02d} {key}", "answer": "{answer}"}}'
        for number in range(16)
        for key, answer in (("a", "R"), ("b", "STU RST"), ("c", "TU"))
    )
    (tmp_path / "long.jsonl").write_text("\n".join(rows))
    path = tmp_path / "long.yaml"
    path.write_text("name: long\ndata: long.jsonl\nsplits: {train: 0.5, select: 0.2, test: 0.3, seed: 0}\n")
    task = load_task(path)
    whole = training(plan, task=task)
    at_once = [loss for _, loss in seen.losses]
    seen.losses.clear()
    halves = training(dataclasses.replace(plan, batch_size=2, accumulate=2), task=task)
    added = [one[1] + two[1] for one, two in zip(seen.losses[::2], seen.losses[1::2], strict=True)]
    assert added == pytest.approx(at_once, rel=1e-3)
    for mine, theirs in zip(whole.recipe.tensors, halves.recipe.tensors, strict=True):
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-2, atol=2e-3)


def test_the_loss_is_the_mean_over_answer_tokens(
    training: Any, tiny: Any, small_tokenizer: Any, planted: Any, seen: Any, plan: TrainPlan
) -> None:
    """Before the first step it is what the evaluation says of the same examples."""
    one_pass = dataclasses.replace(plan, init="identity", batch_size=48, epochs=1)
    training(one_pass)
    base = strop.evaluate(tiny("llama"), small_tokenizer, planted, split="train")
    assert seen.losses[0][1] == pytest.approx(base.mean_loss, rel=1e-5)
