"""What an edit leaves behind in a matrix's output, added to the output of the module that holds it."""

from torch import Tensor, nn

from strop.errors import InterventionError


def holder_of(weight: nn.Parameter, module: nn.Module, *, name: str) -> tuple[str, nn.Module]:
    """Return the module a weight belongs to, by its name: `module`, or what an adapter around it keeps inside."""
    parts = module.named_modules(prefix=name)
    owners = (part for part in parts if dict(part[1].named_parameters(recurse=False)).get("weight") is weight)
    return next(owners, (name, module))


def bias_of(module: nn.Module, outputs: int, *, where: str) -> nn.Parameter | None:
    """Return a module's bias, or None where it has none and could be given one.

    Raises:
        InterventionError: it knows no bias, or what it calls so is none.
    """
    bias = getattr(module, "bias", False)
    if bias is None or (isinstance(bias, nn.Parameter) and bias.shape == (outputs,)):
        return bias
    raise InterventionError(f"{where}, a {type(module).__name__}, can hold no bias; prune with --bias none.")


class ShiftByPosition:
    """A hook that adds a tensor (positions, features) to a module's output, as a bias for each position would.

    Args:
        name: the module's, for messages.
        module: whose output it is; the hook comes before all others, so that they see what a bias would make.
        shift: (positions, features).
    """

    def __init__(self, name: str, module: nn.Module, shift: Tensor) -> None:
        self._name = name
        self._shift = shift
        self._handle = module.register_forward_hook(self._added, prepend=True)

    @property
    def positions(self) -> int:
        """How many tokens the sequences have that it holds for."""
        return self._shift.shape[0]

    def add(self, shift: Tensor, features: Tensor) -> None:
        """Add a shift (positions, out) in the place of some features.

        Raises:
            InterventionError: it is for another number of positions than those before it.
        """
        if shift.shape[0] != self._shift.shape[0]:
            raise InterventionError(
                f"{self._name}: a bias for {shift.shape[0]} positions and one for {self._shift.shape[0]} cannot hold for "
                "the same sequences; prune both on one sample."
            )
        self._shift[:, features] += shift

    def remove(self) -> None:
        """Take the hook off."""
        self._handle.remove()

    def _added(self, _module: nn.Module, _arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if output.ndim < 3:
            raise InterventionError(
                f"{self._name} is given the tokens of a batch one after another, so that none has a position; prune with "
                "--bias mean."
            )
        positions, found = self._shift.shape[0], output.shape[-2]
        if found != positions:
            raise InterventionError(
                f"{self._name}: its bias holds for sequences of {positions} tokens, not of {found}; prune with "
                "--bias mean for one that holds for any length."
            )
        return output + self._shift.to(output)
