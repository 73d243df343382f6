"""Effects of matrices whose inputs no module shows, such as an expert's, from the gradient of the parameter that holds them."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from strop.anatomy import Anatomy, WeightSite
from strop.errors import UsageError
from strop.linalg import Reduction, SingularValueDecomposition, singular_value_effects_from_gradient
from strop.scoring import Batch

BY_TOKEN: tuple[Reduction, ...] = ("max", "mean-abs")
"""The reductions that need each token's effect."""
BY_EXAMPLE: tuple[Reduction, ...] = ("consistency", "squares")
"""Those that need each example's."""


def refuse_unseen_inputs(
    anatomy: Anatomy,
    sites: Sequence[WeightSite],
    *,
    counterfactual: str = "zero",
    reduction: str = "sum",
    steps: int = 1,
    bias: str = "none",
) -> None:
    """Refuse what needs a matrix's inputs where these cannot be seen.

    Args:
        anatomy: of the model.
        sites: the matrices.
        counterfactual: what a component is thought to see instead of its input.
        reduction: how effects at many tokens become a score.
        steps: points the gradient is averaged over.
        bias: what stays behind of removed components.

    Raises:
        UsageError: a setting needs inputs of a matrix that is a part of a larger module's parameter, or an expert's.
    """
    unseen = next((site for site in sites if not anatomy.spelling(site).sees_every_token), None)
    if unseen is None:
        return
    for name, found, fitting in (
        ("counterfactual", counterfactual, ("zero",)),
        ("reduction", reduction, ("consistency", "sum", "squares")),
        ("steps", steps, (1,)),
        ("bias", bias, ("none",)),
    ):
        if found not in fitting:
            raise UsageError(
                f"{unseen}: which tokens reach it cannot be seen, and {name} '{found}' needs that; take {name} "
                f"'{fitting[0]}' (--{name} {fitting[0]}), or other matrices (--matrix-types)."
            )


def rows_alone(batch: Batch) -> Iterator[Batch]:
    """Yield each row of a batch as a batch of its own, without padding."""
    lengths = batch.real.sum(1)
    for row, length in enumerate(lengths.tolist()):
        own = batch.rows == row
        chosen = own.nonzero()[:, 0].tolist()
        given = batch.counterfactual_ids
        yield dataclasses.replace(
            batch,
            input_ids=batch.input_ids[row : row + 1, :length],
            rows=torch.zeros_like(batch.rows[own]),
            columns=batch.columns[own],
            targets=batch.targets[own],
            sequences=tuple(batch.sequences[position] for position in chosen),
            prompt_lengths=batch.prompt_lengths[row : row + 1],
            counterfactual_ids=None if given is None else given[row : row + 1, :length],
            beside={
                name: tensor[row : row + 1] if name.startswith("decoder_") else tensor[row : row + 1, :length]
                for name, tensor in batch.beside.items()
            },
        )


@contextlib.contextmanager
def asking(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let some parameters of a frozen model ask for gradients."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


def effects_of_gradient(decomposition: SingularValueDecomposition, gradient: Tensor) -> Tensor:
    """Return e_i = −σ_i u_iᵀ G v_i, (1, rank): zeros where no token reached the matrix.

    Args:
        decomposition: of the matrix, (out, in).
        gradient: G, (out, in), summed over the tokens that reached it.
    """
    if not bool(gradient.any()):
        return torch.zeros(1, len(decomposition.singular_values), dtype=torch.float64)
    return singular_value_effects_from_gradient(decomposition, gradient)[None]
