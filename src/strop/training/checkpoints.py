"""Checkpoints of a training: a recipe with what was learned so far, and all that is needed to go on exactly."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.errors import RecipeError, TrainingError
from strop.files import making_folder
from strop.interventions import Attachment
from strop.recipe import Recipe
from strop.recipe.folder import fill_recipe_folder
from strop.training.state import read_optimiser, read_randomness, write_optimiser, write_randomness

if TYPE_CHECKING:
    Base = Any
else:
    Base = object

PREFIX = "checkpoint-"
STATE = "trainer_state.json"


class InterventionCheckpoints(Base):  # type: ignore[misc]
    """What a `Trainer` lacks to keep edits of hidden states: mix it in before the trainer's class.

        class MyTrainer(InterventionCheckpoints, SFTTrainer): ...

        trainer = MyTrainer(model=model, ...)
        trainer.keep(attachment, recipe)

    A checkpoint is then a recipe folder that loads from its path alone, with the states of optimiser, schedule and
    randomness beside it, and never the base model. It appears whole or not at all, and nothing in it is pickled.
    """

    attachment: Attachment
    recipe: Recipe

    def keep(self, attachment: Attachment, recipe: Recipe) -> None:
        """Say what is being trained: the attachment whose edits learn, and the recipe it was made from."""
        self.attachment, self.recipe = attachment, recipe

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the recipe with what was learned so far; a recipe that is there already gives way to it."""
        target = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            replace_recipe(self.recipe.learned_by(self.attachment), target)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        target = Path(self.args.output_dir) / f"{PREFIX}{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(target, ignore_errors=True)
            with making_folder(target) as temporary:
                fill_recipe_folder(self.recipe.learned_by(self.attachment), temporary)
                scaler = getattr(self.accelerator, "scaler", None)
                write_optimiser(
                    temporary,
                    self.optimizer.state_dict(),
                    self.lr_scheduler.state_dict(),
                    scaler.state_dict() if scaler is not None else {},
                )
                write_randomness(temporary, 0)
                self.state.save_to_json(str(temporary / STATE))
            for older in checkpoints_in(target.parent)[:-1]:
                shutil.rmtree(older, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self.args.process_index > 0:
            write_randomness(target, self.args.process_index)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        kept = Recipe.load(resume_from_checkpoint)
        if kept.interventions != self.recipe.interventions:
            raise TrainingError(
                f"{resume_from_checkpoint} holds other edits than those being trained: resume with the same settings, or "
                "choose another --out."
            )
        self.attachment.load(kept.tensors, head=kept.head)

    def _load_best_model(self) -> None:
        raise TrainingError("The best edits are chosen by the caller; train with load_best_model_at_end=False.")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            optimiser, schedule, _ = read_optimiser(Path(checkpoint))
            self.optimizer.load_state_dict(optimiser)
            self.lr_scheduler.load_state_dict(schedule)

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if checkpoint is not None and scaler is not None:
            _, _, scale = read_optimiser(Path(checkpoint))
            if scale:
                scaler.load_state_dict(scale)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            read_randomness(Path(checkpoint), self.args.process_index)


def checkpoints_in(folder: Path) -> list[Path]:
    """Return a folder's whole checkpoints, the oldest first."""
    found = (path for path in folder.glob(f"{PREFIX}*") if (path / STATE).is_file())
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def replace_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe folder in the place of one that may be there.

    Raises:
        RecipeError: something else is there.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "recipe.json").is_file():
        raise RecipeError(f"{folder} is there already and holds no recipe: choose another folder or remove this one.")
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    recipe.save(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
