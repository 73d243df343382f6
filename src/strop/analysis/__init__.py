"""Typed tables about weights, answers and runs: those that ask a model, and all that `strop.findings` reads off a run's files."""

from strop.analysis.matrices import MatrixRow, describe_matrices
from strop.analysis.paraphrases import facts_in_words
from strop.analysis.removed_components import removed_components
from strop.analysis.run import RunAnalyses
from strop.findings import (
    changed_examples,
    choice_curve,
    gain_by_category,
    gain_by_frequency,
    loss_by_layer_and_rank,
    paraphrase_robustness,
    race_curve,
    spectrum_rows,
)

__all__ = [
    "MatrixRow",
    "RunAnalyses",
    "changed_examples",
    "choice_curve",
    "describe_matrices",
    "facts_in_words",
    "gain_by_category",
    "gain_by_frequency",
    "loss_by_layer_and_rank",
    "paraphrase_robustness",
    "race_curve",
    "removed_components",
    "spectrum_rows",
]
