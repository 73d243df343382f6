"""One file per method; `apply` puts interventions on a model and takes them off, bit for bit."""

from strop.interventions.apply import applied_interventions, attach_interventions
from strop.interventions.attachment import Attachment, attachments_of
from strop.interventions.edit_module import EditModule
from strop.interventions.explain import explain_positions
from strop.interventions.factored_change import FactoredChange
from strop.interventions.formulas import ACTIVATIONS, FORMULAS, Formula
from strop.interventions.head import Head
from strop.interventions.interfaces import (
    Additive,
    ChangesByFactors,
    Decompose,
    Entry,
    Factored,
    Intervention,
    Lessens,
    ScalesSpectrum,
    Shape,
    StateIntervention,
    StateModule,
    WeightIntervention,
)
from strop.interventions.low_rank_edit import LowRankEdit
from strop.interventions.low_rank_update import LowRankUpdate
from strop.interventions.methods import METHODS, intervention_from_json, method_names, register_method
from strop.interventions.output_bias import OutputBias
from strop.interventions.positions import Positions
from strop.interventions.prompts import prompt_lengths
from strop.interventions.rank_reduction import RankReduction
from strop.interventions.singular_value_pruning import Bias, SingularValuePruning
from strop.interventions.spectrum_scaling import SpectrumScaling
from strop.interventions.summary import brief, summarize

__all__ = [
    "ACTIVATIONS",
    "FORMULAS",
    "METHODS",
    "Additive",
    "Attachment",
    "Bias",
    "ChangesByFactors",
    "Decompose",
    "EditModule",
    "Entry",
    "Factored",
    "FactoredChange",
    "Formula",
    "Head",
    "Intervention",
    "Lessens",
    "LowRankEdit",
    "LowRankUpdate",
    "OutputBias",
    "Positions",
    "RankReduction",
    "ScalesSpectrum",
    "Shape",
    "SingularValuePruning",
    "SpectrumScaling",
    "StateIntervention",
    "StateModule",
    "WeightIntervention",
    "applied_interventions",
    "attach_interventions",
    "attachments_of",
    "brief",
    "explain_positions",
    "intervention_from_json",
    "method_names",
    "prompt_lengths",
    "register_method",
    "summarize",
]
