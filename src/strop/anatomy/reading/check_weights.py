"""Check that what is read as a matrix is stored there once, and is what its module computes with."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.place import Place
from strop.anatomy.reading.rounding import rounding_of
from strop.errors import AnatomyError, UneditableWeightError


def readable(model: PreTrainedModel, places: Iterable[Place]) -> list[Place]:
    """Return the places whose matrices are here to be read: not quantised, and not offloaded."""
    found = []
    for place in places:
        try:
            place.parameter(model)
        except UneditableWeightError:
            continue
        found.append(place)
    return found


def refuse_other_storage(model: PreTrainedModel, places: Iterable[Place]) -> None:
    """Raise AnatomyError unless what is read of some places can be written back as it is stored, and is no other's.

    Args:
        model: whose weights they are; they are left alone.
        places: those of one block whose matrices can be read.

    Raises:
        AnatomyError: two of them share an entry, or what is read back is not what is stored.
        UneditableWeightError: a packed parameter has other rows than its parts make up.
    """
    copies: dict[Tensor, tuple[Tensor, Tensor]] = {}
    for place in places:
        site, parameter = place.site, place.parameter(model)
        stored = parameter.detach()
        copy, taken = copies.setdefault(
            parameter, (torch.zeros_like(stored), torch.zeros_like(stored, dtype=torch.bool))
        )
        where = f"{place.module_path}.{place.spelling.parameter}"
        if place.matrix_in(taken).any():
            raise AnatomyError(
                f"{site}: its entries of {where} are said to be another matrix's too; spell each matrix as what it is."
            )
        place.write_matrix(taken, torch.ones_like(place.matrix_in(taken)))
        place.write_matrix(copy, place.matrix_in(stored))
        if not torch.equal(torch.where(taken, copy, stored), stored):
            raise AnatomyError(
                f"{site}: what is read of {where} is not what is stored there; describe its layout otherwise."
            )


class OutputCheck:
    """Check, for the length of a `with` block, that modules give x Wᵀ + b, with W and b as they are read.

    It is done at once, for some models go on to add to what a module gave in place (Falcon).

    Args:
        model: whose modules they are.
        places: what the modules hold; those of a module that is not called are passed over.

    Raises:
        AnatomyError: a module gave something else.
    """

    def __init__(self, model: PreTrainedModel, places: Iterable[Place]) -> None:
        self.reached: list[Place] = []
        """The places whose modules were called."""
        self.calls: Counter[nn.Module] = Counter()
        self._model = model
        self._places: dict[nn.Module, list[Place]] = {}
        for place in places:
            module = place.module(model)
            wrapped = getattr(module, "base_layer", None)  # an adapter's wrapper adds to what the matrix gives
            self._places.setdefault(wrapped if isinstance(wrapped, nn.Module) else module, []).append(place)

    def __enter__(self) -> "OutputCheck":
        self._handles = [module.register_forward_hook(self._check) for module in self._places]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _check(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.calls[module] += 1
        for place in self._places[module]:
            if place not in self.reached:
                self.reached.append(place)
            _refuse_other_output(self._model, place, arguments[0], output)


def _refuse_other_output(model: PreTrainedModel, place: Place, inputs: Tensor, outputs: Tensor) -> None:
    site, where = place.site, place.module_path
    matrix, given = place.read(model), place.outputs_in(outputs.detach()).float()
    if (matrix.shape[0], matrix.shape[1]) != (given.shape[-1], inputs.shape[-1]):
        raise AnatomyError(
            f"{site}: {where} makes {given.shape[-1]} features of {inputs.shape[-1]}, and the matrix that is read "
            f"{matrix.shape[0]} of {matrix.shape[1]}; correct the spelling's transposed."
        )
    expected = inputs.float() @ matrix.float().T
    bias = getattr(place.module(model), "bias", None)
    if isinstance(bias, Tensor):
        expected = expected + place.outputs_in(bias.detach()).float()
    off = (given - expected).norm() / given.norm().clamp_min(1e-20)
    if off > rounding_of(outputs.dtype):
        raise AnatomyError(
            f"{site}: what {where} gives is not its input times the matrix that is read, plus its bias; it is off by {off:.1%} "
            "of its size: correct the spelling's path or transposed."
        )
