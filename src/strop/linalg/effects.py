"""What each singular value does to a loss, to first order."""

import torch
from jaxtyping import Float
from torch import Tensor

from strop.linalg.svd import SingularValueDecomposition


def singular_value_effects(
    decomposition: SingularValueDecomposition,
    inputs: Float[Tensor, "tokens in"],
    output_gradients: Float[Tensor, "tokens out"],
) -> Float[Tensor, " rank"]:
    """Return what each component contributes to a loss, to first order, from a matrix's inputs and output gradients.

    e_i = σ_i Σ_t (x_t · v_i)(∇y_t · u_i) = σ_i u_iᵀ G v_i with G = Σ_t ∇y_t x_tᵀ = ∂L/∂W

    Removing component i changes the loss by about −e_i. G itself is never formed: the sum runs over tokens, so only
    two tokens x rank products live at a time (gradients of singular values: arXiv 2510.20800; the per-token form is
    that of eigenpruning, arXiv 2404.03147, with a zero counterfactual).

    Args:
        decomposition: of the matrix, (out, in), rank components.
        inputs: x, (tokens, in); padding left out or with zero gradient.
        output_gradients: ∇y = ∂L/∂y, (tokens, out).

    Returns:
        (rank,) float64 on the CPU, in the loss's unit.

    >>> from strop.linalg import decompose
    >>> w = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> singular_value_effects(decompose(w), torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 5.0]]))
    tensor([6., 5.], dtype=torch.float64)
    """
    dtype = decomposition.u.dtype
    along_inputs = inputs.to(dtype) @ decomposition.vh.T
    along_outputs = output_gradients.to(dtype) @ decomposition.u
    per_component = torch.linalg.vecdot(along_inputs, along_outputs, dim=0)
    effects: Tensor = per_component.cpu().double() * decomposition.singular_values.cpu().double()
    return effects


def singular_value_effects_from_gradient(
    decomposition: SingularValueDecomposition, gradient: Float[Tensor, "out in"]
) -> Float[Tensor, " rank"]:
    """Return the same effects from the weight's own gradient.

    e_i = σ_i u_iᵀ G v_i

    Args:
        decomposition: of the matrix, (out, in), rank components.
        gradient: G = ∂L/∂W, (out, in).

    Returns:
        (rank,) float64 on the CPU, in the loss's unit.

    >>> from strop.linalg import decompose
    >>> w = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> singular_value_effects_from_gradient(decompose(w), torch.tensor([[3.0, 9.0], [9.0, 5.0]]))
    tensor([6., 5.], dtype=torch.float64)
    """
    projected = gradient.to(decomposition.u.dtype) @ decomposition.vh.T
    per_component = torch.linalg.vecdot(decomposition.u, projected, dim=0)
    effects: Tensor = per_component.cpu().double() * decomposition.singular_values.cpu().double()
    return effects


def loss_change_by_rank(effects: Float[Tensor, " rank"]) -> Float[Tensor, " ranks"]:
    """Return the predicted change of the loss for every rank the matrix could be cut to.

    Δ(k) = −Σ_{i≥k} e_i for k = 0 … n; Δ(n) = 0: nothing is removed.

    Args:
        effects: e, (rank,), in the order of descending singular values.

    Returns:
        (rank + 1,), entry k for keeping k components; negative where the loss is predicted to fall.

    >>> loss_change_by_rank(torch.tensor([1.0, -2.0, 3.0]))
    tensor([-2., -1., -3.,  0.])
    """
    tail = effects.flip(0).cumsum(0).flip(0)
    return torch.cat([-tail, tail.new_zeros(1)])
