"""What of a spectrum looks like noise, by nothing but the singular values themselves."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from strop.errors import UsageError

IQR_OF_NORMAL = 1.349
"""The interquartile range of normal numbers, in standard deviations."""


def noise_threshold(singular_values: Float[Tensor, " rank"], shape: tuple[int, int]) -> float:
    """Return the singular value up to which laserRMT and Spectrum take a spectrum for noise.

    θ = s · (1 + √β), s = IQR(σ) / 1.349, β = min(m, n) / max(m, n)  (the code of laserRMT; Spectrum, arXiv 2406.06623)

    It is a rule of thumb with the form of the edge of Marchenko and Pastur, which is s (√m + √n) for noise whose *entries* have
    the standard deviation s: here s is read off the singular values, and of a matrix of nothing but noise a part stands above θ.

    Args:
        singular_values: (rank,), in any order.
        shape: (m, n) of the matrix.

    Returns:
        θ, which a matrix and its transpose share, and which grows as the matrix does; NaN where a value is not finite.

    Raises:
        UsageError: the shape has not so many singular values.

    >>> round(noise_threshold(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), (5, 20)), 6)  # 2 / 1.349 · 1.5
    2.22387
    """
    if singular_values.shape[0] != min(shape):
        raise UsageError(
            f"A {shape[0]} x {shape[1]} matrix has {min(shape)} singular values, not {singular_values.shape[0]}."
        )
    values = singular_values.detach().cpu().double()
    if not bool(torch.isfinite(values).all()):
        return math.nan
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype))
    beta = min(shape) / max(shape)
    return float((high - low) / IQR_OF_NORMAL) * (1 + math.sqrt(beta))


def signal_to_noise(singular_values: Float[Tensor, " rank"], threshold: float) -> float:
    """Return how much of a spectrum stands above a threshold, for each unit of what does not.

    SNR = Σ_{σ_i > θ} σ_i / Σ_{σ_i ≤ θ} σ_i  (the code of laserRMT)

    Args:
        singular_values: (rank,), in any order.
        threshold: θ.

    Returns:
        0 where nothing stands above, infinity where all does; NaN where there is neither, as of a zero matrix, or a value or
        the threshold is not a number.

    >>> signal_to_noise(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), 2.5)
    4.0
    """
    values = singular_values.detach().cpu().double()
    if math.isnan(threshold) or not bool(torch.isfinite(values).all()):
        return math.nan
    above = values > threshold
    signal, noise = float(values[above].sum()), float(values[~above].sum())
    if noise == 0:
        return math.inf if signal else math.nan
    return signal / noise
