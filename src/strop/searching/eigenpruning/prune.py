"""Eigenpruning: remove the singular values that hurt a task, and prove the gain on held-out examples."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.checkpoints import takes_names_of_classifiers
from strop.errors import UsageError
from strop.proving import (
    Assignment,
    DriftFromBase,
    Guard,
    RunOptions,
    RunOutcome,
    RunSettings,
    TextPerplexity,
    conduct,
)
from strop.scoring import ClassScorer, Scorer
from strop.searching.averages import refuse_mixed_lengths
from strop.searching.eigenpruning.plan import PrunePlan
from strop.searching.eigenpruning.pruner import Pruner
from strop.tasks import TaskSource, load_task, refuse_objective


@takes_names_of_classifiers
def prune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    plan: PrunePlan | None = None,
    options: RunOptions | None = None,
) -> RunOutcome:
    """Find which singular values of which matrices to remove, and prove the gain on held-out examples.

    W ← W − Σ_{i∈R} σ_i u_i v_iᵀ, R the components whose removal is estimated to help most (Vergara-Browne, Soto and Aizawa,
    eigenpruning, arXiv 2404.03147). In each round effects are estimated on train and shares of the components tried; the
    select split says how many rounds were worth it, "no edit" included, and the test split is scored once for the base and
    once for the chosen recipe, after the choice is made. The model is left as it was.

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
        UsageError: the counterfactual or the bias does not fit the examples, the model is not of the kind the task is for, or
            that lacks the categories that `macro` averages over.
    """
    task = load_task(task)
    plan, options = plan or PrunePlan(), options or RunOptions()
    refuse_objective(task, plan.objective)
    if plan.bias == "position":
        _refuse_other_text(options.guards)
    with options.in_force():
        pruner = Pruner(Assignment.of(model, tokenizer, task, options), plan)
        settings = RunSettings.of("prune", plan)
        return conduct(pruner, settings, options, check_test=_one_length(pruner) if plan.bias == "position" else None)


def _refuse_other_text(guards: Sequence[Guard]) -> None:
    """Refuse guards that read text of other lengths than those a bias at each position is taken from."""
    for guard in guards:
        if isinstance(guard.measure, (DriftFromBase, TextPerplexity)):
            raise UsageError(
                f"A bias at each position holds for prompts of one length, and the guard on {guard.measure.name} reads other "
                "text; prune with --bias mean or none, or leave the guard out."
            )


def _one_length(pruner: Pruner) -> Callable[[Scorer | ClassScorer], None]:
    """Return what refuses test examples of other lengths than those a bias at each position is taken from."""

    def check(test: Scorer | ClassScorer) -> None:
        refuse_mixed_lengths(pruner.examples.guide, pruner.examples.select, test)

    return check
