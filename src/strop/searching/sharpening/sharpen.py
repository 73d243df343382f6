"""Sharpen a model for a task: move its singular values a little, and prove the gain on held-out examples."""

import dataclasses

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.checkpoints import takes_names
from strop.errors import UsageError
from strop.proving import Assignment, DriftFromBase, Guard, RunOptions, RunOutcome, RunSettings, conduct
from strop.scoring import writes
from strop.searching.fisher import FISHER_TEXTS
from strop.searching.sharpening.plan import DRIFT, SharpenPlan
from strop.searching.sharpening.sharpener import Sharpener
from strop.tasks import Task, TaskSource, load_task, refuse_objective


@takes_names
def sharpen(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    plan: SharpenPlan | None = None,
    options: RunOptions | None = None,
) -> RunOutcome:
    """Move all singular values of a model a little, where a task's gradient says so, inside a drift budget.

    W′ = U diag(σ ⊙ (1 + d)) Vᵀ; each step is d ← d − η P(g), g = ∂loss/∂d over some train examples. P(g) is
    sign g / √(F + δ F̄) by default, or sign g, g / (F + δ F̄) or g, scaled to mean size 1, with F the Fisher information of the
    base's own text, or of the labels a classifier itself gives those examples. The select split says how long a step is and
    how many are worth it, "no step" included; a step that drifts further from the base than the plan allows is not taken. The
    test split is scored once for the base and once for the chosen recipe, after the choice is made. The model is left as it
    was.

    Args:
        model: a causal language model, or a classifier where the task has labels, with nothing attached;
            its name or folder stands for it and its tokenizer.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: a task, or what `load_task` takes; its train split guides where it has one, else select does.
        plan: the settings.
        options: where to begin, what to spend and where to write.

    Raises:
        RunError: the run folder is in use, is being worked on, or was begun with other settings.
        InterventionError: something is attached to the model.
        BaseMismatchError: the recipe to begin with was made for another model.
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
        UsageError: a bound on drift is asked of a classifier, or the task lacks the categories that `macro` averages over.
    """
    task = load_task(task)
    plan, options = plan or SharpenPlan(), options or RunOptions()
    refuse_objective(task, plan.objective)
    plan = _plan_for(task, plan)
    if plan.drift is not None:
        options = dataclasses.replace(options, guards=_with_bound(options, plan.drift))
    with options.in_force():
        given = Assignment.of(model, tokenizer, task, options)
        if plan.drift is not None and not writes(given.model, given.anatomy):
            raise UsageError(
                f"{type(model).__name__} writes no text of its own, which a bound on drift is measured on: take drift None "
                "(--drift 0) and precondition 'sign' or 'none'."
            )
        if plan.drift is not None and given.start.holds_for_one_length:
            raise UsageError(
                "The recipe to begin with holds for sequences of one length, and drift is measured on longer text: take drift "
                "None (--drift 0), or prune with --bias mean."
            )
        sharpener = Sharpener(given, plan)
        settings = RunSettings.of("sharpen", plan)
        return conduct(sharpener, settings, options)


def _plan_for(task: Task, plan: SharpenPlan) -> SharpenPlan:
    """Return the plan as it holds for a task: a classifier writes no text, so that its drift has no bound.

    Raises:
        UsageError: the plan has settings of such text.
    """
    if task.labels is None:
        return plan
    if plan.drift not in (None, DRIFT) or plan.fisher_texts != FISHER_TEXTS:
        raise UsageError(
            f"Task {task.name} has labels, and a classifier writes no text that drift (--drift) or fisher_texts "
            "(--fisher-texts) could be about; leave them out."
        )
    return dataclasses.replace(plan, drift=None)


def _with_bound(options: RunOptions, drift: float) -> tuple[Guard, ...]:
    """Return a run's guards with one on drift, the tighter one where there is such a guard already."""
    bound = Guard(DriftFromBase(options.drift_text), drift)
    same = [guard for guard in options.guards if guard.measure.fingerprint == bound.measure.fingerprint]
    others = [guard for guard in options.guards if guard not in same]
    return (*others, min([bound, *same], key=lambda guard: guard.bound))
