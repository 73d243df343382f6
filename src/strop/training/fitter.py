"""Fit edits of hidden states to the train split, and let the select split choose the epoch."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Stream, StreamSite
from strop.checkpoints.load import quiet_transformers
from strop.errors import TrainingError
from strop.files import remove_partial_folders
from strop.interventions import Attachment, Intervention, LowRankEdit, applied_interventions, attach_interventions
from strop.interventions.base import Decompose
from strop.recipe import Recipe
from strop.runs import CandidateSpace, Choice, Journal, Trial
from strop.runs.processes import of_all_processes
from strop.runs.proof import states_below
from strop.scoring import ClassScorer, Scorer
from strop.training.checkpoints import checkpoints_in, steps_of
from strop.training.objective import Objective
from strop.training.plan import TrainPlan
from strop.training.state import randomness, restore_randomness
from strop.training.trainer import EditTrainer, quietest, refuse_unknown_reports, release
from strop.training.watch import Watch, stopping_gently

EPOCHS: CandidateSpace[int] = CandidateSpace(
    distributions={"epoch": optuna.distributions.IntDistribution(1, 10**6)},
    spell=lambda epoch: {"epoch": epoch},
    read=lambda settings: int(settings["epoch"]),
)


class Fitter:
    """One training: the edits it begins with, and what chooses among its epochs.

    Args:
        model: as it is, with nothing attached.
        anatomy: of that model.
        objective: what is learned from, and what is made small.
        select: the examples that choose.
        plan: the settings.
        after: a recipe to begin with.
        decompose: how to come by decompositions.

    Raises:
        SiteError: the model has no such layer.
        UsageError: the rank is above the hidden size, the method cannot begin as asked, no edit has a subspace that is to
            be trained, or losses cannot be reported where they are to be.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        objective: Objective,
        select: Scorer | ClassScorer,
        plan: TrainPlan,
        *,
        after: Recipe | None,
        decompose: Decompose,
    ) -> None:
        refuse_unknown_reports(plan.report_to)
        self._model, self._anatomy, self._objective, self._select = model, anatomy, objective, select
        self._plan, self._decompose = plan, decompose
        self._start: tuple[Intervention, ...] = after.interventions if after is not None else ()
        self._start_tensors: tuple[Mapping[str, Tensor], ...] = after.tensors if after is not None else ()
        self._start_head = after.head if after is not None else None
        self._head = self._start_head or objective.head_of(model)
        self._goes_on = _has_subspaces(self._start, plan.train_subspaces)
        new = () if self._goes_on else self._new_edits()
        generator = torch.Generator().manual_seed(plan.seed)
        drawn = [edit.initial_tensors(anatomy.hidden_size, init=plan.init, generator=generator) for edit in new]
        for edit in new:
            edit.refuse_other_subspaces(plan.train_subspaces)
        self._interventions: tuple[Intervention, ...] = (*self._start, *new)
        self._tensors: tuple[Mapping[str, Tensor], ...] = (*self._start_tensors, *drawn)
        self._learning = len(self._start) if not self._goes_on else 0
        """The index of the first intervention that may learn."""

    def _new_edits(self) -> list[LowRankEdit]:
        layers = self._plan.layers if self._plan.layers is not None else range(self._anatomy.layer_count)
        edits = [edit for layer in sorted(layers) for edit in self._plan.edits_at(layer)]
        for edit in edits:
            self._anatomy.stream_module(self._model, edit.site)
        return edits

    @property
    def lowest(self) -> StreamSite:
        """The site the forward pass meets first at which something learns."""
        order = (Stream.ATTENTION, Stream.MLP, Stream.BLOCK)
        learning = (entry for entry in self._interventions[self._learning :] if isinstance(entry, LowRankEdit))
        return min((entry.site for entry in learning), key=lambda site: (site.layer, order.index(site.stream)))

    def choose(self, journal: Journal) -> Choice:
        """Train, and return what the select split chose."""
        unedited = self._score(journal, 0, ())
        start = self._score(journal, 1, self._start) if self._start else None
        recipe = Recipe.of(
            self._model, self._interventions, family=self._anatomy.family, tensors=self._tensors, head=self._head
        )
        with _undisturbed(self._model):
            attachment = attach_interventions(
                self._model,
                self._interventions,
                anatomy=self._anatomy,
                tensors=self._tensors,
                decompose=self._decompose,
                head=self._head,
                trainable=True,
            )
            try:
                watch = self._train(journal, attachment, recipe, start or unedited)
            finally:
                attachment.detach()
        return self._choice(watch, unedited, start)

    def _train(self, journal: Journal, attachment: Attachment, recipe: Recipe, unedited: Trial[Any]) -> Watch:
        self._prepare(attachment)
        lowest = self.lowest.layer
        states = states_below(self._select, lowest)
        watch = Watch(journal, self._select, states, lowest, attachment, recipe, unedited, self._plan.patience)
        with contextlib.ExitStack() as stack:
            if journal.folder is not None:
                folder = journal.folder / "checkpoints"
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(quiet_transformers())
            stack.enter_context(stopping_gently(watch, journal))
            trainer = self._trainer(folder, watch, saves=journal.folder is not None)
            trainer.keep(attachment, recipe)
            stack.callback(release, trainer)
            stack.callback(self._objective.forget)
            with trainer.compute_loss_context_manager():
                self._objective.keep_below(self.lowest, self._plan, progress=journal.progress)
            if journal.run is not None:
                for place in (journal.run.path, folder):
                    remove_partial_folders(place)
            self._run(trainer, watch, journal, folder)
        return watch

    def _run(self, trainer: EditTrainer, watch: Watch, journal: Journal, folder: Path) -> None:
        kept = checkpoints_in(folder)
        steps_of_epoch = -(-len(trainer.get_train_dataloader()) // self._plan.accumulate)
        done = int(steps_of(kept[-1])) if kept else 0
        if kept:
            watch.recall_best(done // steps_of_epoch)
            journal.say(f"going on from step {done}, in epoch {done // steps_of_epoch + 1}")
        journal.progress.start("training", self._plan.epochs * steps_of_epoch)
        journal.progress.advance(done)
        if of_all_processes(watch.is_over(done // steps_of_epoch))[0]:
            return
        try:
            trainer.train(resume_from_checkpoint=str(kept[-1]) if kept else None)
        except TrainingError as error:
            raise TrainingError(self._with_advice(error, watch.kept)) from None
        if watch.interrupted:
            raise KeyboardInterrupt

    def _with_advice(self, error: TrainingError, kept: str) -> str:
        narrow = self._plan.precision != "float32" or self._model.dtype != torch.float32
        remedy = (
            f"train with a lower learning rate than {self._plan.learning_rate:g}{', or in float32' if narrow else ''}"
        )
        return "; ".join(part for part in (str(error).rstrip("."), remedy, kept) if part) + "."

    def _prepare(self, attachment: Attachment) -> None:
        """Let only what is to learn ask for gradients, set its dropout, and say what the blocks keep."""
        before = sum(isinstance(entry, LowRankEdit) for entry in self._interventions[: self._learning])
        for number, edit in enumerate(attachment.edits):
            edit.train_subspaces(self._plan.train_subspaces if number >= before else ())
            edit.dropout, edit.drops_state = self._plan.dropout, self._plan.dropout_on == "state"
        if self._plan.gradient_checkpointing:
            _compute_activations_again(self._model)

    def _trainer(self, folder: Path, watch: Watch, *, saves: bool) -> EditTrainer:
        plan = self._plan
        arguments = quietest(
            {
                "output_dir": str(folder),
                "num_train_epochs": plan.epochs,
                "per_device_train_batch_size": plan.batch_size,
                "gradient_accumulation_steps": plan.accumulate,
                "learning_rate": plan.learning_rate,
                "weight_decay": plan.weight_decay,
                "warmup_steps": plan.warmup,
                "lr_scheduler_type": plan.schedule
                if not (plan.schedule == "constant" and plan.warmup)
                else "constant_with_warmup",
                "max_grad_norm": plan.max_grad_norm,
                "bf16": plan.precision == "bfloat16",
                "fp16": plan.precision == "float16",
                "ddp_find_unused_parameters": False,
                "optim": "adamw_torch",
                "seed": plan.seed,
                "save_strategy": "epoch" if saves else "no",
                "save_total_limit": 1,
                "logging_steps": 10,
                "logging_nan_inf_filter": False,
                "report_to": list(plan.report_to),
                "disable_tqdm": True,
                "remove_unused_columns": False,
                "label_names": ["labels"],
                "dataloader_pin_memory": self._model.device.type == "cuda",
                "use_cpu": self._model.device.type == "cpu",
            }
        )
        return EditTrainer(self._model, self._objective, arguments, [watch])

    def _score(self, journal: Journal, number: int, interventions: Sequence[Intervention]) -> Trial[Any]:
        """Return what the model scores before training, with or without the recipe to begin with."""
        known = journal.book.find(number, None, self._select.example_count)
        if known is not None:
            return known
        journal.progress.start("scoring select", self._select.steps)
        with applied_interventions(
            self._model,
            interventions,
            anatomy=self._anatomy,
            tensors=self._start_tensors[: len(interventions)],
            decompose=self._decompose,
            head=self._start_head if interventions else None,
        ):
            return journal.record(number, None, self._select.evaluate(progress=journal.progress))

    def _choice(self, watch: Watch, unedited: Trial[Any], start: Trial[Any] | None) -> Choice:
        learned = watch.best.candidate is not None
        tensors = self._start_tensors
        if learned:
            tensors = tuple({**given, **new} for given, new in zip(self._tensors, watch.best_tensors, strict=True))
        epochs = self._plan.epochs if watch.best.candidate is None else watch.best.candidate
        return Choice(
            self._interventions if learned else self._start,
            unedited,
            watch.best,
            tokens=self._objective.tokens * epochs + self._select.tokens * (epochs + 1 + bool(self._start)),
            tensors=tensors,
            started_from=() if self._goes_on else self._start,
            start=None if self._goes_on else start,
            head=watch.best_head if learned else self._start_head,
            start_head=None if self._goes_on else self._start_head,
        )


def _has_subspaces(interventions: Sequence[Intervention], wanted: tuple[str, ...] | None) -> bool:
    """Return whether edits that are there already have the subspaces that are to be trained."""
    if wanted is None:
        return False
    return any(
        isinstance(entry, LowRankEdit) and set(wanted) <= {name for name, _ in entry.subspaces}
        for entry in interventions
    )


def _compute_activations_again(model: PreTrainedModel) -> None:
    """Let each block compute its activations again in the backward pass; `_undisturbed` takes that back.

    The Trainer's own switch would ask for gradients at the embeddings too, and so run the backward pass through every
    block below the lowest edit.
    """
    asked = bool(getattr(model, "_require_grads_hooks", None) or getattr(model, "_require_grads_hook", None))
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    if not asked:
        model.disable_input_require_grads()


@contextlib.contextmanager
def _undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Give back what a training changes besides parameters: modes, the cache setting, the sources of randomness.

    accelerate wraps `forward` in an autocast and takes more off than it put on, and transformers leaves its switches on
    the modules: so all that a module has of its own is noted before, and put back.
    """
    owned = [(module, dict(vars(module))) for module in model.modules()]
    use_cache = getattr(model.config, "use_cache", None)
    state = randomness()
    try:
        yield
    finally:
        for module, before in owned:
            for name in set(vars(module)) - set(before):
                del vars(module)[name]
            vars(module).update(before)
        if use_cache is not None:
            model.config.use_cache = use_cache
        restore_randomness(state)
