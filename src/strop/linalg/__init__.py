"""Tensors in, tensors out: decompositions, ranks, subspaces, spectra, frames and the effects of singular values."""

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
from strop.linalg.parted import PartedFactors, Partition, parted_factors
from strop.linalg.precision import full_precision
from strop.linalg.rank import Axis, fraction_for_rank, rank_for_fraction, rank_for_laser_rate, rank_per_subspace
from strop.linalg.spectra import Spectrum, effective_rank, retained_energy, spectrum_of
from strop.linalg.subspaces import SubspaceClustering, cluster_by_subspace, equal_blocks
from strop.linalg.svd import SingularValueDecomposition, decompose, decompose_together, without_components

__all__ = [
    "Axis",
    "DecompositionCache",
    "EffectAccumulator",
    "Frames",
    "PartedFactors",
    "Partition",
    "Reduction",
    "SingularValueDecomposition",
    "Spectrum",
    "SubspaceClustering",
    "are_components",
    "checksum",
    "cluster_by_subspace",
    "decompose",
    "decompose_together",
    "effective_rank",
    "equal_blocks",
    "fingerprint",
    "fraction_for_rank",
    "full_precision",
    "loss_change_by_rank",
    "noise_threshold",
    "orthonormal_rows",
    "parted_factors",
    "rank_for_fraction",
    "rank_for_laser_rate",
    "rank_per_subspace",
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
