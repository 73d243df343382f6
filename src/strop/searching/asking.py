"""Ask the gradient what components do to a task's loss, whatever kind of model the task is for."""

from collections.abc import Callable, Sequence

from strop.anatomy import WeightSite
from strop.interventions.interfaces import Decompose
from strop.linalg import SingularValueDecomposition
from strop.progress import SILENT, Progress
from strop.scoring import ClassScorer, Scorer
from strop.searching.decompositions import HeldDecompositions
from strop.searching.effect_plan import EffectPlan
from strop.searching.effects import Effects, measure_effects
from strop.searching.label_effects import measure_label_effects


def effects_on(
    scorer: Scorer | ClassScorer,
    sites: Sequence[WeightSite],
    *,
    decompose: Decompose,
    plan: EffectPlan | None = None,
    decompositions: Callable[[WeightSite], SingularValueDecomposition] | None = None,
    stage: str,
    progress: Progress = SILENT,
) -> dict[WeightSite, Effects]:
    """Return for each matrix what removing each of its components does to the loss of some examples, to first order.

    Args:
        scorer: the examples, on a language model or a classifier.
        sites: whole matrices, or single heads.
        decompose: how to come by decompositions.
        plan: counterfactual, reduction and steps; by default the plain gradient of the singular values.
        decompositions: what to project on instead of the matrices' own decompositions as they are now.
        stage: what to call it in the progress.
        progress: told how far it is.

    Raises:
        UsageError: the plan does not go with the model or the examples.
    """
    if isinstance(scorer, Scorer):
        return measure_effects(
            scorer, sites, decompose=decompose, plan=plan, decompositions=decompositions, stage=stage, progress=progress
        )
    held = decompositions or HeldDecompositions(scorer.model, scorer.anatomy, sites, decompose=decompose)
    return measure_label_effects(scorer, sites, decompositions=held, plan=plan, stage=stage, progress=progress)
