"""Checkpoints of a training: a recipe with what was learned so far, and all that is needed to go on exactly."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from strop.errors import TrainingError
from strop.files import PARTIAL, make_readable, replacing_folder
from strop.interventions import Attachment
from strop.proving.processes import of_all_processes
from strop.recipe import Recipe
from strop.training.state import (
    randomness,
    read_beside,
    read_optimiser,
    read_randomness,
    refusing_damage,
    write_beside,
    write_optimiser,
    write_randomness,
)

if TYPE_CHECKING:
    Base = Any
else:
    Base = object

PREFIX = "checkpoint-"
STATE = "trainer_state.json"


class InterventionCheckpoints(Base):  # type: ignore[misc]
    """What a `Trainer` lacks to keep edits that learn: mix it in before the trainer's class.

        class MyTrainer(InterventionCheckpoints, SFTTrainer): ...

        trainer = MyTrainer(model=model, ...)
        trainer.keep(attachment, recipe)

    A checkpoint is then a recipe folder that loads from its path alone, with the states of optimiser, schedule and
    randomness beside it, whatever else in the model learns, such as a LoRA adapter, and never the base model. It appears
    whole or not at all, and nothing in it is pickled. `load_best_model_at_end` gives the attachment the edits of the best
    checkpoint.
    """

    attachment: Attachment
    recipe: Recipe

    def keep(self, attachment: Attachment, recipe: Recipe) -> None:
        """Say what is being trained: the attachment whose edits learn, and the recipe it was made from."""
        self.attachment, self.recipe = attachment, recipe

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the recipe with what was learned so far, beside whatever else the folder holds, and PEFT's adapter.

        Raises:
            TrainingError: something else learns as well, which neither holds.
        """
        if self.args.should_save:
            beside = self._beside()
            if beside and not hasattr(self.model, "peft_config"):
                names = [*sorted(beside)[:3], *(["…"] if len(beside) > 3 else [])]
                raise TrainingError(
                    f"What else learns is not in the recipe ({', '.join(names)}); save it yourself, or freeze it before "
                    "training."
                )
            if beside:
                self.model.save_pretrained(output_dir or self.args.output_dir)
            add_recipe(self.recipe.learned_by(self.attachment), Path(output_dir or self.args.output_dir))

    def _beside(self) -> dict[str, nn.Parameter]:
        """Return what else learns, by name: all that asks for gradients and is neither an edit's nor the head's."""
        head = self.attachment.head.parameters if self.attachment.head is not None else ()
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
            and not self.attachment.adds(parameter)
            and not any(parameter is own for own in head)
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        target = Path(self.args.output_dir) / f"{PREFIX}{self.state.global_step}"
        of_processes = of_all_processes(randomness())
        if self.args.should_save:
            with replacing_folder(target) as temporary:
                self.recipe.learned_by(self.attachment).write_files(temporary)
                scaler = getattr(self.accelerator, "scaler", None)
                write_optimiser(
                    temporary,
                    self.optimizer.state_dict(),
                    self.lr_scheduler.state_dict(),
                    scaler.state_dict() if scaler is not None else {},
                )
                write_randomness(temporary, of_processes)
                write_beside(temporary, self._beside())
                self._note_best(target)
                self.state.save_to_json(str(temporary / STATE))
            if self.args.save_total_limit:
                best = Path(self.state.best_model_checkpoint or target)
                others = [path for path in checkpoints_in(target.parent) if path not in (target, best)]
                spared = 1 + (best != target)
                for older in others[: max(0, len(others) + spared - self.args.save_total_limit)]:
                    shutil.rmtree(older, ignore_errors=True)

    def _note_best(self, target: Path) -> None:
        """Say in the trainer's state which checkpoint is the best by what was evaluated, as transformers does."""
        if self.state.best_global_step:
            best = target.with_name(f"{PREFIX}{self.state.best_global_step}")
            if best == target or best.is_dir():
                self.state.best_model_checkpoint = str(best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        kept = Recipe.load(resume_from_checkpoint)
        if kept.interventions != self.recipe.interventions:
            raise TrainingError(
                f"{resume_from_checkpoint} holds other edits than those being trained: resume with the same settings, or "
                "choose another --out."
            )
        self.attachment.load(kept.tensors, head=kept.head)
        read_beside(Path(resume_from_checkpoint), self._beside())

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            optimiser, schedule, _ = read_optimiser(Path(checkpoint))
            with refusing_damage(Path(checkpoint)):
                self.optimizer.load_state_dict(optimiser)
                self.lr_scheduler.load_state_dict(schedule)
                _refuse_other_shapes(self.optimizer)

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if checkpoint is not None and scaler is not None:
            _, _, scale = read_optimiser(Path(checkpoint))
            if scale:
                scaler.load_state_dict(scale)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            read_randomness(Path(checkpoint), self.args.process_index)


def _refuse_other_shapes(optimiser: Any) -> None:
    """Raise ValueError if what an optimiser remembers of a parameter is another's."""
    for parameter, remembered in getattr(optimiser, "state", {}).items():
        for name, own in remembered.items():
            if getattr(own, "ndim", None) == parameter.ndim and own.shape != parameter.shape:
                raise ValueError(
                    f"its {name} is of shape {tuple(own.shape)}, and the parameter of {tuple(parameter.shape)}"
                )


def checkpoints_in(folder: Path) -> list[Path]:
    """Return a folder's whole checkpoints, the oldest first."""
    found = (path for path in folder.glob(f"{PREFIX}*") if (path / STATE).is_file())
    return sorted((path for path in found if steps_of(path).isdecimal()), key=lambda path: int(steps_of(path)))


def steps_of(checkpoint: Path) -> str:
    """Return how many steps a checkpoint's name says were done."""
    return checkpoint.name.removeprefix(PREFIX)


def add_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe's files into a folder that may hold others, such as checkpoints; those of another recipe give way."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".recipe.", suffix=PARTIAL) as temporary:
        recipe.write_files(Path(temporary))
        for file in Path(temporary).iterdir():
            make_readable(file)
            file.replace(folder / file.name)
