"""What happens between the steps of a training: the select split scores each epoch, the best edits are kept."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from strop.errors import TrainingError
from strop.files import replacing_folder
from strop.interventions import Attachment, Head
from strop.interventions.learned import LearnedTensors
from strop.proving import Journal, Trial, TrialKey, describe_trial
from strop.proving.processes import of_all_processes
from strop.recipe import Recipe
from strop.runs import GuardReading
from strop.scoring import ClassScorer, Scorer
from strop.training.averaging import averaged, note_step
from strop.training.lessening import ATTEMPTS, lessened, share_within

BEST = "best"


@dataclasses.dataclass(frozen=True)
class Moment:
    """What select chooses among: the edits as an epoch left them, or their average over its training's late steps."""

    epoch: int
    averaged: bool = False
    share: float = 1.0
    """How much of what the edits change is left: less than all where a guard allows no more."""

    def to_json(self) -> dict[str, int | float]:
        """Return its settings as a study holds them."""
        averaged = {"averaged": 1} if self.averaged else {}
        return {"epoch": self.epoch, **averaged, **({"share": self.share} if self.share < 1 else {})}

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "Moment":
        """Return the moment of such settings."""
        return cls(int(settings["epoch"]), bool(settings.get("averaged", 0)), float(settings.get("share", 1.0)))

    def __str__(self) -> str:
        what = "the average of the late steps" if self.averaged else f"epoch {self.epoch}"
        return what if self.share == 1 else f"{self.share:.0%} of {what}"


class Watch(TrainerCallback):  # type: ignore[misc]
    """Score each epoch on select, keep the best, stop where nothing gets better or someone asks for it.

    Args:
        journal: where scores are written.
        scorer: the select examples.
        states: what enters the lowest edited block for each of their batches, where it is kept.
        lowest: that block.
        attachment: whose edits learn.
        recipe: it was made from.
        unedited: what the epochs compete with: the model before training.
        patience: epochs without a better choice before it stops.
        averages: what was learned late is averaged, and the average is scored after the last epoch.
        lessens_from: where a guard speaks against a choice that would win, a share of the edits from this one on is tried; None
            where no share of them can be.
    """

    def __init__(
        self,
        journal: Journal,
        scorer: Scorer | ClassScorer,
        states: list[Tensor] | None,
        lowest: int,
        attachment: Attachment,
        recipe: Recipe,
        unedited: Trial,
        patience: int | None,
        averages: bool,
        lessens_from: int | None = None,
    ) -> None:
        self._journal, self._scorer, self._states, self._lowest = journal, scorer, states, lowest
        self._attachment, self._recipe, self._patience, self._averages = attachment, recipe, patience, averages
        self._lessens_from = lessens_from
        self.best: Trial = unedited
        """The best of the epochs and the model before training."""
        self.best_tensors: tuple[Mapping[str, Tensor], ...] = ()
        """What the edits had learned by then; empty for the model before training."""
        self.best_head: Head | None = None
        """The classification head by then, where one learns."""
        self.interrupted = False
        """Someone asked to stop."""
        self.cut_short = False
        """Epochs were left out for the budget's sake."""

    def recall_best(self, until_epoch: int) -> None:
        """Take up the best edits of an earlier sitting, if they are of an epoch that is over."""
        folder = self._best_folder()
        if folder is None or not (folder / "recipe.json").is_file():
            return
        kept = Recipe.load(folder)
        moment = Moment.from_json(kept.provenance)
        trial = self._journal.find(self._key(moment))
        if trial is None or kept.interventions != self._recipe.interventions:
            return
        if moment.epoch <= until_epoch:
            self.best, self.best_tensors, self.best_head = trial, kept.tensors, kept.head
        else:  # it is of the epoch that is done again, and what it was better than competes with that again
            self.best = self._best_of(until_epoch) or self.best

    def _best_of(self, epoch: int) -> Trial | None:
        """Return the best trial of an epoch and those before, as it was known when that was over; None where none was better."""
        for earlier in range(epoch, 0, -1):
            text = self._journal.recall(_best_until(earlier))
            if text is not None:
                return self._journal.find(TrialKey.read(text))
        return None

    @property
    def best_moment(self) -> Moment | None:
        """Which epoch, or the average, is the best; None where the model before training is."""
        moment: Moment | None = self._journal.candidate(self.best)
        return moment

    def _key(self, moment: Moment) -> TrialKey:
        return self._journal.key(moment, round=moment.epoch, examples=self._scorer.example_count)

    def is_over(self, epoch: int) -> bool:
        """Return whether no epoch is to follow one: none was better for as long as the patience lasts, or the budget is spent.

        One that an earlier sitting began, or scored, follows all the same, so that a killed run ends as it would have.
        """
        if self.has_lost_patience(epoch):
            return True
        if self._journal.find(self._key(Moment(epoch + 1))) is not None:
            return False
        name = f"epoch {epoch + 1} begins within {self._journal.budget}"
        return not self._journal.once(name, lambda: not self._journal.is_spent)

    def has_lost_patience(self, epoch: int) -> bool:
        """Return whether none was better for as long as the patience lasts, by the end of an epoch."""
        best = self.best_moment.epoch if self.best_moment is not None else 0
        return self._patience is not None and epoch - best >= self._patience

    @property
    def kept(self) -> str:
        """Where the best edits are, in words; empty where nothing was better than the model before training."""
        folder = self._best_folder()
        if folder is None or self.best_moment is None:
            return ""
        return f"the best edits so far, those of {self.best_moment}, are kept in {folder}"

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Move what a step took out of its bounds back to them, and take what it left into the average."""
        for module in self._attachment.modules:
            if isinstance(module, LearnedTensors):
                module.hold_in_bounds()
        if self._averages:
            note_step(given["optimizer"], step=state.global_step + 1, steps=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step; stop after it if someone asked for it, with a checkpoint to go on from."""
        self._journal.progress.advance()
        self.interrupted = any(of_all_processes(self.interrupted))
        if self.interrupted:
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no" and not _ends_an_epoch(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Write the loss to the run's log."""
        run = self._journal.run
        if run is not None and "loss" in logs and state.is_world_process_zero:
            run.log(f"step {state.global_step}: loss {logs['loss']:.4f}, learning rate {logs['learning_rate']:.3g}")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Score the epoch on select, by process 0 for all; after the last one the average as well.

        Raises:
            TrainingError: the edits are no longer made of finite numbers.
        """
        if not _ends_an_epoch(state):
            return  # it was interrupted
        epoch = round(state.epoch)
        stop = any(of_all_processes(state.is_world_process_zero and self._score(epoch)))
        if stop and epoch < round(args.num_train_epochs):
            self.cut_short = not self.has_lost_patience(epoch)
            why = f"no better epoch in {self._patience}"
            if self.cut_short:
                why = f"the budget of {self._journal.budget} is spent"
            self._journal.say(f"{why}: stopping after epoch {epoch}")
            control.should_training_stop = True
        if self._averages and state.is_world_process_zero and state.global_step == state.max_steps:
            with averaged(given["optimizer"]):
                self._judge(Moment(epoch, averaged=True))
        control.should_save = args.save_strategy != "no"

    def _score(self, epoch: int) -> bool:
        """Score the edits as an epoch left them; return whether it is time to stop."""
        self._judge(Moment(epoch))
        return self.is_over(epoch)

    def _judge(self, moment: Moment) -> None:
        """Score the edits as they are, and keep them if they are the best so far.

        In the model's own precision, as what they compete with is scored, and the choice after them; guards look on so too.
        """
        with without_autocast(self._scorer.model):
            self._judge_in_full_precision(moment)

    def _judge_in_full_precision(self, moment: Moment) -> None:
        learned = self._attachment.tensors
        if not all(bool(torch.isfinite(tensor).all()) for own in learned for tensor in own.values()):
            raise TrainingError(f"The edits are no longer made of finite numbers after epoch {moment.epoch}.")
        trial = self._measured(moment)
        better = trial.merit > self.best.merit
        broken = self._journal.refusal(trial.key) if better else None
        self._tell(moment, trial, best=better and broken is None)
        if broken is not None:
            self._judge_less(moment, broken)
        elif better:
            self._keep(moment, trial)

    def _judge_less(self, moment: Moment, broken: GuardReading | None) -> None:
        """Score as much of the edits as a guard allows that speaks against all of them, and keep that if it is the best so far."""
        if self._lessens_from is None:
            return
        harms: list[tuple[float, float]] = []
        for attempt in range(ATTEMPTS):
            if broken is None or not self._has_time_for(moment, attempt):
                return
            harms.append((moment.share, broken.harm))
            share = share_within(broken.bound, harms, at_none=self._harm_of_none(broken.name))
            if not share:
                return
            moment, told = dataclasses.replace(moment, share=share), broken.name
            with lessened(self._attachment, share, learning_from=self._lessens_from) as possible:
                if not possible:
                    return
                broken = self._journal.refusal(self._key(moment))
                if broken is None:
                    trial = self._measured(moment)
                    better = trial.merit > self.best.merit
                    self._tell(moment, trial, best=better)
                    if better:
                        self._keep(moment, trial)
                elif broken.name != told:
                    harms.clear()  # of another measure

    def _has_time_for(self, moment: Moment, attempt: int) -> bool:
        """Return whether one more share may be tried, the same after a resume: the first ends what an epoch began."""
        name = f"{moment.to_json()} has time"
        return bool(self._journal.once(name, lambda: attempt == 0 or not self._journal.is_spent))

    def _harm_of_none(self, name: str) -> float:
        """Return what a guard says of the edits these are learned on top of."""
        if not self._lessens_from:
            return 0.0
        with lessened(self._attachment, 0.0, learning_from=self._lessens_from) as possible:
            readings = self._journal.guards.readings(self._key(Moment(1, share=0.0))) if possible else ()
        return next((reading.harm for reading in readings if reading.name == name), 0.0)

    def _measured(self, moment: Moment) -> Trial:
        """Return the trial of the edits as they are."""
        start = self._lowest if self._states is not None else 0
        return self._journal.measure(
            self._key(moment), lambda: self._scorer.evaluate(start=start, states=self._states), begun=True
        )

    def _tell(self, moment: Moment, trial: Trial, *, best: bool) -> None:
        self._journal.say(f"{moment}: {describe_trial(trial)}{', the best so far' if best else ''}")

    def _keep(self, moment: Moment, trial: Trial) -> None:
        """Keep the edits as they are: they are the best so far."""
        best = self._recipe.learned_by(self._attachment)
        self.best, self.best_tensors, self.best_head = trial, self._attachment.tensors, best.head
        self._journal.remember(_best_until(moment.epoch), trial.key.text)
        folder = self._best_folder()
        if folder is not None:
            with replacing_folder(folder) as temporary:
                best.with_provenance(moment.to_json()).write_files(temporary)

    def _best_folder(self) -> Path | None:
        journal = self._journal
        return journal.folder / BEST if journal.run is not None and journal.folder is not None else None


def _best_until(epoch: int) -> str:
    """Return what the best trial until the end of an epoch is kept by."""
    return f"best until epoch {epoch}"


@contextlib.contextmanager
def without_autocast(model: PreTrainedModel) -> Iterator[None]:
    """Take off, for a `with` block, the autocast that accelerate has put around a model's forward."""
    wrapped, own = (vars(model).get(name) for name in ("forward", "_original_forward"))
    if wrapped is None or own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped


def _ends_an_epoch(state: Any) -> bool:
    return float(state.epoch).is_integer()


@contextlib.contextmanager
def stopping_gently(watch: Watch, journal: Journal) -> Iterator[None]:
    """Let the first Ctrl-C finish the step and write a checkpoint, and the second stop at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        if watch.interrupted:
            raise KeyboardInterrupt
        watch.interrupted = True
        journal.progress.note("stopping after this step; press Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
