"""Eigenpruning: remove the singular values that hurt a task, and prove the gain on held-out examples."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family, WeightSite
from strop.anatomy.sites import ATTENTION
from strop.linalg import DecompositionCache
from strop.progress import SILENT, Progress
from strop.recipe import Recipe
from strop.runs.proof import Assignment, RunOutcome, conduct
from strop.scoring import Scorer
from strop.searching.bites import bites_of, space_of
from strop.searching.means import refuse_mixed_lengths
from strop.searching.prune_plan import PrunePlan
from strop.searching.pruner import PruneExamples, Pruner
from strop.searching.search import editable_shapes
from strop.tasks import Task, refuse_labels


def prune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    plan: PrunePlan | None = None,
    *,
    after: Recipe | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    resume: bool = False,
    family: Family | None = None,
    with_factors: bool = False,
    decompositions: DecompositionCache | None = None,
    progress: Progress = SILENT,
) -> RunOutcome:
    """Find which singular values of which matrices to remove, and prove the gain on held-out examples.

    W ← W − Σ_{i∈R} σ_i u_i v_iᵀ, R the components whose removal is estimated to help most (Vergara-Browne, Soto and Aizawa,
    eigenpruning, arXiv 2404.03147). In each round effects are estimated on train and shares of the components tried; the
    select split says how many rounds were worth it, "no edit" included, and the test split is scored once for the base and
    once for the chosen recipe, after the choice is made. The model is left as it was.

    Args:
        model: a causal language model, with nothing attached.
        tokenizer: its fast tokenizer.
        task: from `load_task`; its train split guides where it has one, else select does.
        plan: the settings.
        after: a recipe to begin with; the one that comes out holds its interventions first.
        out: the run folder; nothing is written by default.
        storage: an Optuna storage address for the trials; study.db in the run folder by default.
        resume: go on with an interrupted run in `out`; finished trials are not repeated and the answer is the same.
        family: the spelling of an architecture Strop does not know.
        with_factors: put the removed components into the recipe, so that applying it decomposes nothing.
        decompositions: the cache of decompositions; the one on disk by default.
        progress: told how far it is.

    Raises:
        RunError: `out` is in use, or was begun with other settings.
        InterventionError: something is attached to the model.
        BaseMismatchError: `after` was made for another model.
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
        UsageError: the counterfactual or the bias does not fit the examples, or the task has labels.
    """
    refuse_labels(task, "prune")
    plan = plan or PrunePlan()
    anatomy = Anatomy.of(model, family=family)
    test = Scorer(
        model,
        tokenizer,
        task.examples("test", limit=plan.test_limit),
        task.score,
        generate=task.generate,
        anatomy=anatomy,
    )
    given = Assignment(
        command="prune",
        model=model,
        task=task,
        anatomy=anatomy,
        settings={**plan.to_json(), "after": after.describe_exactly() if after is not None else None},
        seed=plan.seed,
        test=test,
        out=Path(out) if out is not None else None,
        storage=storage,
        resume=resume,
        with_factors=with_factors,
        decompose=(decompositions or DecompositionCache()).decompose,
        progress=progress,
    )
    if after is not None:
        after.check(model, family=family)
    whole = editable_shapes(model, anatomy, layers=plan.layers, matrix_types=plan.matrix_types)
    sites = list(whole) if plan.whole_matrices else _by_head(anatomy, list(whole))
    examples = PruneExamples.of(model, tokenizer, task, plan, anatomy=anatomy)
    if plan.bias == "position":
        refuse_mixed_lengths(examples.guide, examples.select, test)
    bites = bites_of(plan, tuple(dict.fromkeys(site.matrix_type for site in sites)))
    return conduct(
        given,
        space_of(bites),
        lambda journal: Pruner(
            examples,
            plan,
            sites,
            journal,
            decompose=given.decompose,
            start=after.interventions if after is not None else (),
            start_tensors=after.tensors if after is not None else (),
        ).choose(),
    )


def _by_head(anatomy: Anatomy, sites: list[WeightSite]) -> list[WeightSite]:
    """Return attention matrices head by head, and the others whole."""
    return [
        part
        for site in sites
        for part in (
            [WeightSite(site.layer, site.matrix_type, head=head) for head in range(anatomy.heads_of(site.matrix_type))]
            if site.matrix_type in ATTENTION
            else [site]
        )
    ]
