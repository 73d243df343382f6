"""Learn edits of hidden states for a task, and prove the gain on held-out examples."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family
from strop.linalg import DecompositionCache
from strop.progress import SILENT, Progress
from strop.recipe import Recipe
from strop.runs import Assignment, RunOutcome, conduct
from strop.runs.processes import join_processes
from strop.scoring import scorer_of
from strop.tasks import Task
from strop.training.fitter import EPOCHS, Fitter
from strop.training.objective import objective_of
from strop.training.plan import TrainPlan


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    plan: TrainPlan | None = None,
    *,
    after: Recipe | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    resume: bool = False,
    family: Family | None = None,
    decompositions: DecompositionCache | None = None,
    progress: Progress = SILENT,
) -> RunOutcome:
    """Learn edits of hidden states inside low-rank subspaces, and prove the gain on held-out examples.

    Φ(h) = h + Rᵀ(W h + b − R h) at chosen layers and prompt positions, for LoReFT, with all of the model's own weights
    frozen (Wu, Arora et al., ReFT, arXiv 2404.03592). The train split teaches; after each epoch the select split is scored
    and the best epoch chosen, "no edit" included; the test split is scored once for the base and once for the chosen
    recipe, after the choice is made. A classifier's head is trained beside the edits, and the recipe carries it. The model
    is left as it was.

    Where torchrun started several processes, each reads batches of its own, whose gradients
    are added up; the first writes the run, and all return what it found.

    Args:
        model: a causal language model, or a classifier where the task has labels, with nothing attached.
        tokenizer: its fast tokenizer.
        task: from `load_task`, with a train split.
        plan: the settings.
        after: a recipe to begin with, such as a search's; the one that comes out holds its interventions first. Where the
            plan names subspaces to train that its edits have, these learn on.
        out: the run folder; nothing is written by default.
        storage: an Optuna storage address for the epochs' scores; study.db in the run folder by default.
        resume: go on with an interrupted run in `out` from its last checkpoint, exactly.
        family: the spelling of an architecture Strop does not know.
        decompositions: the cache of decompositions `after` may need; the one on disk by default.
        progress: told how far it is.

    Raises:
        RunError: `out` is in use, or was begun with other settings.
        InterventionError: something is attached to the model, or the edits do not fit it.
        BaseMismatchError: `after` was made for another model.
        TaskError: a row does not fit the model, or there is no train split.
        SiteError: the model has no such layer.
        TrainingError: the loss became NaN; the best edits so far are kept in the run folder's `best`.
        UsageError: a rank is above the hidden size, there is nothing to resume, or the model is not of the kind the task is
            for.

    >>> import strop
    >>> model, tokenizer = strop.load("smollm2-135m")  # doctest: +SKIP
    >>> result = strop.train(model, tokenizer, strop.load_task("int-sum"))  # doctest: +SKIP
    """
    plan = plan or TrainPlan()
    together = join_processes(model.device)
    if together and model.device.type == "cuda":
        model.to(torch.device("cuda", torch.cuda.current_device()))  # each process has a device of its own
    anatomy = Anatomy.of(model, family=family)
    decompose = (decompositions or DecompositionCache()).decompose
    if after is not None:
        after.check(model, family=family)
        if after.head is not None:
            after.head.check(model)
    objective = objective_of(model, tokenizer, task, limit=plan.train_limit, anatomy=anatomy)
    select, test = (
        scorer_of(model, tokenizer, task, task.examples(split, limit=limit), anatomy=anatomy)
        for split, limit in (("select", plan.select_limit), ("test", plan.test_limit))
    )
    given = Assignment(
        command="train",
        model=model,
        task=task,
        anatomy=anatomy,
        settings={**plan.to_json(), "after": after.describe_exactly() if after is not None else None},
        seed=plan.seed,
        test=test,
        out=Path(out) if out is not None else None,
        storage=storage,
        resume=resume,
        with_factors=False,
        decompose=decompose,
        progress=progress,
        together=together,
    )
    fitter = Fitter(model, anatomy, objective, select, plan, after=after, decompose=decompose)
    return conduct(given, EPOCHS, fitter.choose)
