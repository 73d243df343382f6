"""Fit edits to the train split, and let the select split choose the epoch."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Site, editable_shapes, input_device
from strop.checkpoints.quiet import quiet_transformers
from strop.errors import TrainingError, UsageError
from strop.files import remove_leftovers
from strop.interventions import Attachment, Intervention, Shape, attach_interventions
from strop.proving import (
    Assignment,
    CandidateSpace,
    Choice,
    Journal,
    Start,
    Trial,
    states_below,
    texts_beside_drift,
)
from strop.proving.processes import of_all_processes
from strop.recipe import Recipe
from strop.scoring import scorer_of, writes
from strop.training.checkpoints import STATE, checkpoints_in, steps_of
from strop.training.gates import Gates, as_prunings
from strop.training.keep import KeepToBase, read_by
from strop.training.objective import Objective, objective_of
from strop.training.plan import WEIGHT_METHODS, TrainPlan
from strop.training.state import randomness, refuse_damaged_state, restore_randomness
from strop.training.trainer import EditTrainer, computing_in, refuse_unknown_reports, release, training_arguments
from strop.training.watch import Moment, Watch, stopping_gently

KEPT_TEXTS = 128
"""Texts of the base's own that edits are held to."""


class Fitter:
    """One training: the edits it begins with, and what chooses among its epochs.

    Args:
        given: what is to be improved, and from where.
        plan: the settings.
        goes_on: the edits it begins with learn on, and no new ones are added.

    Raises:
        TaskError: a row does not fit the model, or there is no train split.
        SiteError: the model has no such layer.
        UsageError: the rank is above the hidden size, the method cannot begin as asked, no edit has a subspace that is to
            be trained, or losses cannot be reported where they are to be.
    """

    def __init__(self, given: Assignment, plan: TrainPlan, *, goes_on: bool = False) -> None:
        self.given = given
        model, anatomy = given.model, given.anatomy
        self._objective: Objective = objective_of(
            model, given.tokenizer, given.task, limit=plan.train_limit, anatomy=anatomy
        )
        examples = given.task.examples("select", limit=plan.select_limit)
        self._select = scorer_of(model, given.tokenizer, given.task, examples, anatomy=anatomy)
        refuse_unknown_reports(plan.report_to)
        if plan.keep_text is not None:
            plan.keep_text.check(model, given.tokenizer, anatomy=anatomy)
        self._model, self._anatomy, self._plan, self._start = model, anatomy, plan, given.start
        self._head = given.start.head or self._objective.head_of(model)
        self._goes_on = goes_on or _has_subspaces(given.start.interventions, plan.train_subspaces)
        new, drawn = ([], []) if self._goes_on else self._new_edits()
        self._interventions: tuple[Intervention, ...] = (*given.start.interventions, *new)
        self._tensors: tuple[Mapping[str, Tensor], ...] = (*given.start.tensors, *drawn)
        self._learning = len(given.start.interventions) if not self._goes_on else 0
        """The index of the first intervention that may learn."""
        self._removals = self._count_removals()

    def _count_removals(self) -> int:
        """Return how many singular values are to be removed; 0 where they are scaled instead."""
        if self._plan.sparsity is None:
            return 0
        if self._head is not None:
            raise UsageError(
                "sparsity goes with language models: a classifier's head learns, and no gate is open or shut in it."
            )
        count = sum(own["change"].numel() for own in self._tensors[self._learning :])
        removals = round((1 - self._plan.sparsity) * count)
        if removals < 1:
            raise UsageError(
                f"A sparsity of {self._plan.sparsity:g} removes none of {count:,} singular values; give less."
            )
        return removals

    @property
    def space(self) -> CandidateSpace[Moment]:
        """How its epochs, and the average of its late steps, are kept in a study."""
        return CandidateSpace(
            method=self._plan.learned_method,
            distributions={
                "epoch": optuna.distributions.IntDistribution(1, 10**6),
                "averaged": optuna.distributions.IntDistribution(0, 1),
                "share": optuna.distributions.FloatDistribution(0.0, 1.0),
            },
            spell=Moment.to_json,
            read=Moment.from_json,
        )

    def _new_edits(self) -> tuple[list[Intervention], list[dict[str, Tensor]]]:
        """Return what is to learn, with the numbers it begins with."""
        generator = torch.Generator().manual_seed(self._plan.seed)
        if self._plan.edits is not None:
            given = list(self._plan.edits)
            return given, [edit.initial_tensors(self._shape_at(edit), generator=generator) for edit in given]
        if self._plan.method in WEIGHT_METHODS:
            return self._new_edits_of_weights(generator)
        stack = self._plan.stack if self._plan.stack is not None else self._anatomy.family.main_stack
        layers = self._plan.layers if self._plan.layers is not None else range(self._anatomy.layers_of(stack))
        edits = [edit for layer in sorted(layers) for edit in self._plan.edits_at(layer, stack)]
        for edit in edits:
            self._anatomy.stream_module(self._model, edit.site)
            edit.refuse_other_subspaces(self._plan.train_subspaces)
        drawn = [
            edit.initial_tensors(self._shape_at(edit), init=self._plan.init, generator=generator) for edit in edits
        ]
        return list(edits), drawn

    def _new_edits_of_weights(self, generator: torch.Generator) -> tuple[list[Intervention], list[dict[str, Tensor]]]:
        plan = self._plan
        shapes = editable_shapes(
            self._model, self._anatomy, layers=plan.layers, matrix_types=plan.weight_types, stack=plan.stack
        )
        edits = [plan.weight_edit_of(site, min(shape)) for site, shape in shapes.items()]
        drawn = [
            edit.initial_tensors(shape, generator=generator) for edit, shape in zip(edits, shapes.values(), strict=True)
        ]
        return [*edits], drawn

    def _shape_at(self, edit: Intervention) -> Shape:
        """Return (out, in) of the matrix an edit changes; hidden states are of size out."""
        if edit.kind == "weight":
            matrix = self._anatomy.read_weight(self._model, edit.site)
            return matrix.shape[0], matrix.shape[1]
        size = self._anatomy.stacks[edit.site.stack].hidden_size
        return size, size

    @property
    def lowest(self) -> Site:
        """The site the forward pass meets first at which something learns."""
        learning = [entry.site for entry in self._interventions[self._learning :] if entry.learned_tensors]
        return min(learning, key=lambda site: (site.layer, site.after_block))

    def choose(self, journal: Journal) -> Choice:
        """Train, and return what the select split chose.

        Args:
            journal: where epochs' scores and decisions are kept.
        """
        unedited = journal.measure_without_candidate(self._select)
        start = None
        if self._start:
            with self._start.applied(self._model, anatomy=self._anatomy, decompose=self.given.decompose):
                start = journal.measure_without_candidate(self._select, started=True)
        recipe = Recipe.of(
            self._model,
            self._interventions,
            base=self.given.base,
            family=self._anatomy.family,
            tensors=self._tensors,
            head=self._head,
        )
        with _undisturbed(self._model):
            kept = self._kept_to_base(journal)
            attachment = attach_interventions(
                self._model,
                self._interventions,
                anatomy=self._anatomy,
                tensors=self._tensors,
                decompose=self.given.decompose,
                head=self._head,
                trainable=True,
                learning_from=self._learning,
            )
            try:
                watch = self._train(journal, attachment, recipe, start or unedited, kept)
            finally:
                attachment.detach()
        return self._choice(watch, unedited, start, kept)

    def _kept_to_base(self, journal: Journal) -> KeepToBase | None:
        """Let the base read what the edits are held to: texts of its own that drift is never measured on, and a user's."""
        plan, given = self._plan, self.given
        if not plan.keep_base or given.task.labels is not None:
            return None
        if not writes(self._model, self._anatomy):
            journal.say("the model writes no text of its own: the edits are not kept to the base")
            return None
        if given.start.holds_for_one_length:
            journal.say("the recipe to begin with holds for one length of text: the edits are not kept to the base")
            return None
        fingerprint = given.base.fingerprint
        texts = texts_beside_drift(
            self._model, given.tokenizer, fingerprint=fingerprint, count=KEPT_TEXTS, progress=journal.progress
        )
        if plan.keep_text is not None:
            own = plan.keep_text.texts(self._model, given.tokenizer, anatomy=self._anatomy, fingerprint=fingerprint)
            texts = (*texts, *own)
        with computing_in(plan.precision, input_device(self._model)):
            return KeepToBase(
                self._model,
                self._anatomy,
                texts,
                weight=plan.keep_base,
                per_pass=plan.keep_texts,
                read_as=read_by(self._model, fingerprint, plan.precision),
            )

    def _train(
        self, journal: Journal, attachment: Attachment, recipe: Recipe, unedited: Trial, kept: KeepToBase | None
    ) -> Watch:
        self._prepare(attachment)
        lowest = self.lowest.layer
        states = states_below(self._select, lowest)
        watch = Watch(
            journal,
            self._select,
            states,
            lowest,
            attachment,
            recipe,
            unedited,
            self._plan.patience,
            averages=self._plan.averages,
            lessens_from=self._learning if not self._removals and self._plan.train_subspaces is None else None,
        )
        with contextlib.ExitStack() as stack:
            if journal.folder is not None:
                folder = journal.folder / "checkpoints"
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(quiet_transformers())
            stack.enter_context(stopping_gently(watch, journal))
            trainer = self._trainer(folder, watch, kept, saves=journal.folder is not None)
            trainer.keep(attachment, recipe)
            stack.callback(release, trainer)
            stack.callback(self._objective.forget)
            with trainer.compute_loss_context_manager():
                self._objective.keep_below(self.lowest, self._plan, progress=journal.progress)
                if kept is not None:
                    kept.keep_below(self.lowest, budget_bytes=self._plan.prefix_budget_bytes, progress=journal.progress)
            if journal.run is not None and journal.folder is not None:
                remove_leftovers(journal.folder)
            self._run(trainer, watch, journal, folder)
        return watch

    def _run(self, trainer: EditTrainer, watch: Watch, journal: Journal, folder: Path) -> None:
        kept = checkpoints_in(folder)
        steps_of_epoch = -(-len(trainer.get_train_dataloader()) // self._plan.accumulate)
        done = int(steps_of(kept[-1])) if kept else 0
        if self._removals:
            changes = [own for own in self._model.parameters() if own.requires_grad]
            trainer.optimizer = Gates(changes, removals=self._removals, steps=self._plan.epochs * steps_of_epoch)
        if kept:
            refuse_damaged_state(kept[-1] / STATE)
            watch.recall_best(done // steps_of_epoch)
            journal.say(f"going on from step {done}, in epoch {done // steps_of_epoch + 1}")
        journal.progress.start("training", self._plan.epochs * steps_of_epoch)
        journal.progress.advance(done)
        if of_all_processes(watch.is_over(done // steps_of_epoch))[0]:
            if journal.is_spent:
                journal.say(f"the budget of {journal.budget} is spent: no epoch begins")
            over = done // steps_of_epoch
            watch.cut_short = over < self._plan.epochs and not watch.has_lost_patience(over)
            return
        try:
            trainer.train(resume_from_checkpoint=str(kept[-1]) if kept else None)
        except TrainingError as error:
            raise TrainingError(self._with_advice(error, watch.kept)) from None
        if watch.interrupted:
            raise KeyboardInterrupt

    def _with_advice(self, error: TrainingError, kept: str) -> str:
        narrow = self._plan.precision != "float32" or self._model.dtype != torch.float32
        remedy = f"train with a lower learning rate than {self._plan.rate:g}{', or in float32' if narrow else ''}"
        return "; ".join(part for part in (str(error).rstrip("."), remedy, kept) if part) + "."

    def _prepare(self, attachment: Attachment) -> None:
        """Let only what is to learn ask for gradients, set its dropout, and say what the blocks keep."""
        plan = self._plan
        for index, (entry, module) in enumerate(zip(attachment.interventions, attachment.modules, strict=True)):
            if not entry.learned_tensors or module is None:
                continue
            module.requires_grad_(index >= self._learning)
            if index >= self._learning and plan.train_subspaces is not None and hasattr(module, "train_subspaces"):
                module.train_subspaces(plan.train_subspaces)
            if hasattr(module, "dropout"):
                module.dropout, module.drops_state = plan.dropout, plan.dropout_on == "state"
        if plan.gradient_checkpointing:
            _compute_activations_again(self._model)

    def _trainer(self, folder: Path, watch: Watch, kept: KeepToBase | None, *, saves: bool) -> EditTrainer:
        plan, device = self._plan, input_device(self._model)
        arguments = training_arguments(
            {
                "output_dir": str(folder),
                "num_train_epochs": plan.epochs,
                "per_device_train_batch_size": plan.batch_size,
                "gradient_accumulation_steps": plan.accumulate,
                "learning_rate": plan.rate,
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
                "dataloader_pin_memory": device.type == "cuda",
                "use_cpu": device.type == "cpu",
            },
            model=self._model,
        )
        return EditTrainer(self._model, self._objective, arguments, [watch], kept)

    def _choice(self, watch: Watch, unedited: Trial, start: Trial | None, kept: KeepToBase | None) -> Choice:
        best, edits = watch.best_moment, self._start
        if best is not None:
            tensors = tuple({**given, **new} for given, new in zip(self._tensors, watch.best_tensors, strict=True))
            begun, own = self._interventions[: self._learning], tensors[: self._learning]
            learned, their = as_prunings(self._interventions[self._learning :], tensors[self._learning :])
            edits = Start((*begun, *learned), (*own, *their), watch.best_head)
        epochs = self._plan.epochs if best is None else best.epoch
        passes = -(-len(self._objective.examples) // self._plan.batch_size)  # type: ignore[arg-type]
        read = self._objective.tokens + (passes * kept.tokens_per_pass if kept is not None else 0)
        scored = epochs + 1 + bool(self._start) + (best is not None and best.averaged)
        return Choice(
            edits,
            unedited,
            watch.best,
            tokens=read * epochs + self._select.tokens * scored,
            cut_short=watch.cut_short,
            start=Start() if self._goes_on else self._start,
            started=None if self._goes_on else start,
        )


def _has_subspaces(interventions: Sequence[Intervention], wanted: tuple[str, ...] | None) -> bool:
    """Return whether edits that are there already have the subspaces that are to be trained."""
    if wanted is None:
        return False
    return any(set(wanted) <= {name for name, _ in getattr(entry, "subspaces", ())} for entry in interventions)


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
