"""Search for rank reductions: propose, score on select, keep the best, measure once on test."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.checkpoints import takes_names_of_classifiers
from strop.proving import Assignment, RunOptions, RunOutcome, RunSettings, conduct
from strop.searching.laser.chooser import ReductionChooser
from strop.searching.laser.plan import SearchPlan
from strop.tasks import TaskSource, load_task, refuse_objective


@takes_names_of_classifiers
def search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    plan: SearchPlan | None = None,
    options: RunOptions | None = None,
) -> RunOutcome:
    """Find which weight matrices to reduce to which rank, and prove the gain on held-out examples.

    The select split chooses, "no edit" is always a candidate, and the test split is scored once for the base and once
    for the chosen recipe, after the choice is made (rank reduction: LASER, arXiv 2312.13558; asking the gradient first:
    arXiv 2510.20800). The model is left as it was.

    Args:
        model: a causal language model, or a classifier where the task has labels, with nothing attached;
            its name or folder stands for it and its tokenizer.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: a task, or what `load_task` takes.
        plan: the settings; one edit found by the gradient by default.
        options: where to begin, what to spend and where to write.

    Raises:
        RunError: the run folder is in use, is being worked on, or was begun with other settings.
        InterventionError: something is attached to the model.
        BaseMismatchError: the recipe to begin with was made for another model.
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
        UsageError: the model is not of the kind the task is for, or that lacks the categories that `macro` averages over.
    """
    task = load_task(task)
    plan, options = plan or SearchPlan(), options or RunOptions()
    refuse_objective(task, plan.objective)
    with options.in_force():
        chooser = ReductionChooser(Assignment.of(model, tokenizer, task, options), plan)
        settings = RunSettings.of("search", plan, shared=True)
        return conduct(chooser, settings, options)
