"""One file per method; `apply` puts interventions on a model and takes them off, bit for bit."""

from strop.interventions.apply import Attachment, applied_interventions, attach_interventions, attachments_of
from strop.interventions.base import Intervention, WeightIntervention, matrix_of
from strop.interventions.explain import explain_positions
from strop.interventions.head import Head
from strop.interventions.low_rank_edit import ACTIVATIONS, FORMULAS, EditModule, Formula, LowRankEdit
from strop.interventions.methods import METHODS, intervention_from_json
from strop.interventions.positions import Positions
from strop.interventions.prompts import prompt_lengths
from strop.interventions.rank_reduction import RankReduction
from strop.interventions.singular_value_pruning import Bias, SingularValuePruning

__all__ = [
    "ACTIVATIONS",
    "FORMULAS",
    "METHODS",
    "Attachment",
    "Bias",
    "EditModule",
    "Formula",
    "Head",
    "Intervention",
    "LowRankEdit",
    "Positions",
    "RankReduction",
    "SingularValuePruning",
    "WeightIntervention",
    "applied_interventions",
    "attach_interventions",
    "attachments_of",
    "explain_positions",
    "intervention_from_json",
    "matrix_of",
    "prompt_lengths",
]
