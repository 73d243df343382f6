"""What each component of a matrix does to a loss, to first order: the one engine of both spectral methods."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strop.errors import UsageError
from strop.linalg.precision import full_precision
from strop.linalg.svd import SingularValueDecomposition

Reduction = Literal["consistency", "sum", "max", "mean-abs", "squares"]
"""How the effects at many tokens become one figure: the mean over examples in units of its spread, their sum, the largest
with its sign, the mean of their sizes, or the mean of the squares of what each example's tokens add up to."""

ROUNDING = 1e-6
"""Examples whose effects differ by no more than this share of them do not differ: float32 tells no finer."""


@full_precision()
def token_effects(
    decomposition: SingularValueDecomposition,
    changes: Float[Tensor, "tokens in"],
    output_gradients: Float[Tensor, "tokens out"],
) -> Float[Tensor, "tokens rank"]:
    """Return, token by token, what a loss does to first order when a component sees another input than the others.

    e_ti = σ_i (Δx_t · v_i)(∇y_t · u_i), Δx = x′ − x  (Vergara-Browne, Soto and Aizawa, eigenpruning, arXiv 2404.03147)

    Args:
        decomposition: of the matrix, (out, in), rank components.
        changes: Δx, (tokens, in): what is put in the place of the input, less the input.
        output_gradients: ∇y = ∂L/∂y, (tokens, out).

    Returns:
        (tokens, rank) in the decomposition's dtype and the loss's unit; negative where the swap helps.

    >>> from strop.linalg import decompose
    >>> w = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> token_effects(decompose(w), -torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 5.0]]))
    tensor([[-6., -5.]])
    """
    dtype = decomposition.u.dtype
    along_inputs = changes.to(dtype) @ decomposition.vh.T
    along_outputs = output_gradients.to(dtype) @ decomposition.u
    return along_inputs.mul_(along_outputs).mul_(decomposition.singular_values)


class EffectAccumulator:
    """The effects of one matrix's components, reduced as tokens come in, so that memory does not grow with the data.

    Args:
        reduction: how tokens are reduced to `score`.

    >>> accumulator = EffectAccumulator("max")
    >>> accumulator.add(torch.tensor([[2.0, 1.0], [0.0, -2.0]]))
    >>> accumulator.loss_change, accumulator.score
    (tensor([ 2., -1.], dtype=torch.float64), tensor([2., 1.], dtype=torch.float64))
    """

    def __init__(self, reduction: Reduction = "sum") -> None:
        self._reduction = reduction
        self._tokens = 0
        self._examples = 0
        self._total: Tensor | None = None
        self._reduced: Tensor | None = None
        self._of_examples: Tensor | None = None

    def add(self, effects: Float[Tensor, "tokens rank"], examples: Int[Tensor, " tokens"] | None = None) -> None:
        """Count some more tokens' effects; no tokens at all change nothing.

        Args:
            effects: as `token_effects` returns them, (tokens, rank).
            examples: which example each token is of, (tokens,); all tokens of an example come in one call. Needed for
                `consistency` and `squares` only.

        Raises:
            UsageError: `examples` is missing.
        """
        if effects.shape[0] == 0:
            return
        self._tokens += effects.shape[0]
        self._total = _plus(self._total, effects.sum(0))
        match self._reduction:
            case "max":
                largest = effects.amax(0).cpu().double()
                self._reduced = largest if self._reduced is None else torch.maximum(self._reduced, largest)
            case "mean-abs":
                self._reduced = _plus(self._reduced, effects.abs().sum(0))
            case "consistency" | "squares":
                if examples is None:
                    raise UsageError(f"The reduction '{self._reduction}' needs to know which example each token is of.")
                present, of_token = torch.unique(examples, return_inverse=True)
                self._examples += present.shape[0]
                of_each = effects.new_zeros(present.shape[0], effects.shape[1])
                of_each = of_each.index_add_(0, of_token.to(effects.device), effects).cpu().double()
                self._of_examples = _plus(self._of_examples, of_each.sum(0))
                self._reduced = _plus(self._reduced, of_each.square_().sum(0))

    @property
    def loss_change(self) -> Float[Tensor, " rank"]:
        """Σ_t e_ti, (rank,) float64: the change of the loss if the component alone is removed, to first order."""
        return _of_some(self._total)

    @property
    def score(self) -> Float[Tensor, " rank"]:
        """The reduced effects, (rank,) float64: the lower, the sooner a component is pruned.

        `consistency` is mean_n(e_ni) / sd_n(e_ni), with e_ni the sum over the tokens of example n; it has no unit, and is
        least where a removal helps most examples alike. Zero where no two examples differ. `squares` is mean_n(e_ni²).
        """
        if self._reduction == "sum":
            return self.loss_change
        reduced = _of_some(self._reduced)
        if self._reduction == "squares":
            return reduced / self._examples
        if self._reduction == "consistency":
            mean = _of_some(self._of_examples) / self._examples
            spread = (reduced / self._examples - mean.square()).clamp_min(0).sqrt()
            return torch.where(spread <= ROUNDING * mean.abs(), 0.0, mean / spread)
        return reduced / self._tokens if self._reduction == "mean-abs" else reduced


def _plus(total: Tensor | None, more: Tensor) -> Tensor:
    added = more.cpu().double()
    return added if total is None else total + added


def _of_some(reduced: Tensor | None) -> Tensor:
    if reduced is None:
        raise UsageError("No token was counted, so there are no effects: take examples of more tokens.")
    return reduced


def singular_value_effects(
    decomposition: SingularValueDecomposition,
    changes: Float[Tensor, "tokens in"],
    output_gradients: Float[Tensor, "tokens out"],
) -> Float[Tensor, " rank"]:
    """Return the change of a loss when one component alone is removed, to first order, summed over tokens.

    e_i = σ_i Σ_t (Δx_t · v_i)(∇y_t · u_i) = σ_i u_iᵀ G v_i with G = Σ_t ∇y_t Δx_tᵀ

    With Δx = −x this is −σ_i u_iᵀ (∂L/∂W) v_i, the gradient of a singular value (arXiv 2510.20800); with Δx = μ − x the
    component's mean output stays behind as a bias. G itself is never formed: two tokens x rank products live at a time.

    Args:
        decomposition: of the matrix, (out, in), rank components.
        changes: Δx, (tokens, in); padding left out or with zero gradient.
        output_gradients: ∇y = ∂L/∂y, (tokens, out).

    Returns:
        (rank,) float64 on the CPU, in the loss's unit; negative where the removal is predicted to help.

    >>> from strop.linalg import decompose
    >>> w = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> singular_value_effects(decompose(w), -torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 5.0]]))
    tensor([-6., -5.], dtype=torch.float64)
    """
    return token_effects(decomposition, changes, output_gradients).sum(0).cpu().double()


@full_precision()
def singular_value_effects_from_gradient(
    decomposition: SingularValueDecomposition, gradient: Float[Tensor, "out in"]
) -> Float[Tensor, " rank"]:
    """Return the same effects, for Δx = −x, from the weight's own gradient.

    e_i = −σ_i u_iᵀ G v_i

    Args:
        decomposition: of the matrix, (out, in), rank components.
        gradient: G = ∂L/∂W, (out, in).

    Returns:
        (rank,) float64 on the CPU, in the loss's unit; negative where the removal is predicted to help.

    >>> from strop.linalg import decompose
    >>> w = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> singular_value_effects_from_gradient(decompose(w), torch.tensor([[3.0, 9.0], [9.0, 5.0]]))
    tensor([-6., -5.], dtype=torch.float64)
    """
    projected = gradient.to(decomposition.u.dtype) @ decomposition.vh.T
    per_component = torch.linalg.vecdot(decomposition.u, projected, dim=0)
    effects: Tensor = -per_component.cpu().double() * decomposition.singular_values.cpu().double()
    return effects


def loss_change_by_rank(effects: Float[Tensor, " rank"]) -> Float[Tensor, " ranks"]:
    """Return the predicted change of the loss for every rank the matrix could be cut to.

    Δ(k) = Σ_{i≥k} e_i for k = 0 … n; Δ(n) = 0: nothing is removed.

    Args:
        effects: e, (rank,), the loss's change if one component is removed, in the order of descending singular values.

    Returns:
        (rank + 1,), entry k for keeping k components; negative where the loss is predicted to fall.

    >>> loss_change_by_rank(torch.tensor([1.0, -2.0, 3.0]))
    tensor([2., 1., 3., 0.])
    """
    tail = effects.flip(0).cumsum(0).flip(0)
    return torch.cat([tail, tail.new_zeros(1)])
