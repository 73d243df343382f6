"""One file per method; `apply` puts interventions on a model and takes them off, bit for bit."""

from strop.interventions.apply import Attachment, applied_interventions, attach_interventions, attachments_of
from strop.interventions.base import WeightIntervention
from strop.interventions.methods import METHODS, intervention_from_json
from strop.interventions.rank_reduction import RankReduction
from strop.interventions.singular_value_pruning import Bias, SingularValuePruning

__all__ = [
    "METHODS",
    "Attachment",
    "Bias",
    "RankReduction",
    "SingularValuePruning",
    "WeightIntervention",
    "applied_interventions",
    "attach_interventions",
    "attachments_of",
    "intervention_from_json",
]
