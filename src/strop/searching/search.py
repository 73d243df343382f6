"""Search for rank reductions: propose, score on select, keep the best, measure once on test."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family, MatrixType, WeightSite
from strop.errors import SiteError
from strop.linalg import DecompositionCache
from strop.progress import SILENT, Progress
from strop.runs.proof import Assignment, RunOutcome, conduct
from strop.scoring import Scorer
from strop.searching.candidates import space_of
from strop.searching.chooser import Chooser, SelectExamples
from strop.searching.plan import SearchPlan
from strop.tasks import Task, refuse_labels


def search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    plan: SearchPlan | None = None,
    *,
    out: str | Path | None = None,
    storage: str | None = None,
    resume: bool = False,
    family: Family | None = None,
    with_factors: bool = False,
    decompositions: DecompositionCache | None = None,
    progress: Progress = SILENT,
) -> RunOutcome:
    """Find which weight matrices to reduce to which rank, and prove the gain on held-out examples.

    The select split chooses, "no edit" is always a candidate, and the test split is scored once for the base and once
    for the chosen recipe, after the choice is made (rank reduction: LASER, arXiv 2312.13558; asking the gradient first:
    arXiv 2510.20800). The model is left as it was.

    Args:
        model: a causal language model, with nothing attached.
        tokenizer: its fast tokenizer.
        task: from `load_task`.
        plan: the settings; one edit found by the gradient by default.
        out: the run folder; nothing is written by default.
        storage: an Optuna storage address for the trials; study.db in the run folder by default.
        resume: go on with an interrupted run in `out`; finished trials are not repeated and the answer is the same.
        family: the spelling of an architecture Strop does not know.
        with_factors: put the low-rank factors into the recipe, so that applying it decomposes nothing.
        decompositions: the cache of decompositions; the one on disk by default.
        progress: told how far it is.

    Raises:
        RunError: `out` is in use, or was begun with other settings.
        InterventionError: something is attached to the model.
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
        UsageError: the task has labels, which a classifier says.
    """
    refuse_labels(task, "search")
    plan = plan or SearchPlan()
    anatomy = Anatomy.of(model, family=family)
    given = Assignment(
        command="search",
        model=model,
        task=task,
        anatomy=anatomy,
        settings=plan.to_json(),
        seed=plan.seed,
        test=Scorer(
            model,
            tokenizer,
            task.examples("test", limit=plan.test_limit),
            task.score,
            generate=task.generate,
            anatomy=anatomy,
        ),
        out=Path(out) if out is not None else None,
        storage=storage,
        resume=resume,
        with_factors=with_factors,
        decompose=(decompositions or DecompositionCache()).decompose,
        progress=progress,
    )
    shapes = editable_shapes(model, anatomy, layers=plan.layers, matrix_types=plan.matrix_types)
    select = SelectExamples.of(model, tokenizer, task, plan, anatomy=anatomy)
    return conduct(
        given,
        space_of(shapes, anatomy.layer_count),
        lambda journal: Chooser(select, plan, shapes, journal, decompose=given.decompose).choose(),
    )


def editable_shapes(
    model: PreTrainedModel,
    anatomy: Anatomy,
    *,
    layers: tuple[int, ...] | None,
    matrix_types: tuple[MatrixType, ...] | None,
) -> dict[WeightSite, tuple[int, int]]:
    """Return the (out, in) of every matrix that is to be considered.

    Args:
        model: whose matrices they are.
        anatomy: the model's.
        layers: all by default.
        matrix_types: all by default.

    Raises:
        SiteError: the model has no such layer or matrix type.
        UneditableWeightError: one of the matrices must be left alone.
    """
    sites = anatomy.sites(layers=layers, matrix_types=matrix_types)
    if not sites:
        raise SiteError("The chosen layers and matrix types leave no matrix to edit.")
    anatomy.refuse_tied(model, sites)
    matrices = {site: anatomy.read_weight(model, site) for site in sites}
    return {site: (matrix.shape[0], matrix.shape[1]) for site, matrix in matrices.items()}
