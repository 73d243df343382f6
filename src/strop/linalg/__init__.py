"""Tensors in, tensors out: decompositions, ranks, spectra, frames and the effects of singular values."""

from strop.linalg.cache import DecompositionCache
from strop.linalg.checksum import checksum
from strop.linalg.effects import (
    EffectAccumulator,
    Reduction,
    loss_change_by_rank,
    singular_value_effects,
    singular_value_effects_from_gradient,
    token_effects,
)
from strop.linalg.factors import are_components
from strop.linalg.fingerprint import fingerprint, remember_fingerprints
from strop.linalg.frames import Frames, orthonormal_rows, rows_made_orthonormal
from strop.linalg.noise import noise_threshold, signal_to_noise
from strop.linalg.precision import full_precision
from strop.linalg.rank import fraction_for_rank, rank_for_fraction, rank_for_laser_rate
from strop.linalg.spectra import Spectrum, effective_rank, retained_energy, spectrum_of
from strop.linalg.svd import SingularValueDecomposition, decompose, decompose_together, without_components

__all__ = [
    "DecompositionCache",
    "EffectAccumulator",
    "Frames",
    "Reduction",
    "SingularValueDecomposition",
    "Spectrum",
    "are_components",
    "checksum",
    "decompose",
    "decompose_together",
    "effective_rank",
    "fingerprint",
    "fraction_for_rank",
    "full_precision",
    "loss_change_by_rank",
    "noise_threshold",
    "orthonormal_rows",
    "rank_for_fraction",
    "rank_for_laser_rate",
    "remember_fingerprints",
    "retained_energy",
    "rows_made_orthonormal",
    "signal_to_noise",
    "singular_value_effects",
    "singular_value_effects_from_gradient",
    "spectrum_of",
    "token_effects",
    "without_components",
]
