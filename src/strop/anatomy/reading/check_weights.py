"""Check that what is read as a matrix is stored there once, and is what its module computes with."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.reading.rounding import rounding_of
from strop.anatomy.sites import WeightSite
from strop.errors import AnatomyError, UneditableWeightError


def readable(model: PreTrainedModel, anatomy: Anatomy, sites: Iterable[WeightSite]) -> list[WeightSite]:
    """Return the sites whose matrices are here to be read: not quantised, and not offloaded."""
    found = []
    for site in sites:
        try:
            anatomy.parameter(model, site)
        except UneditableWeightError:
            continue
        found.append(site)
    return found


def refuse_other_storage(model: PreTrainedModel, anatomy: Anatomy, sites: Iterable[WeightSite]) -> None:
    """Raise AnatomyError unless what is read of some sites can be written back as it is stored, and is no other's.

    Args:
        model: whose weights they are; they are left alone.
        anatomy: of that model.
        sites: those of one block whose matrices can be read.

    Raises:
        AnatomyError: two of them share an entry, or what is read back is not what is stored.
        UneditableWeightError: a packed parameter has other rows than its parts make up.
    """
    copies: dict[Tensor, tuple[Tensor, Tensor]] = {}
    for site in sites:
        parameter = anatomy.parameter(model, site)
        stored = parameter.detach()
        copy, taken = copies.setdefault(
            parameter, (torch.zeros_like(stored), torch.zeros_like(stored, dtype=torch.bool))
        )
        where = f"{anatomy.module_path(site)}.{anatomy.spelling(site).parameter}"
        if anatomy.matrix_in(taken, site).any():
            raise AnatomyError(
                f"{site}: its entries of {where} are said to be another matrix's too; spell each matrix as what it is."
            )
        anatomy.write_matrix(taken, site, torch.ones_like(anatomy.matrix_in(taken, site)))
        anatomy.write_matrix(copy, site, anatomy.matrix_in(stored, site))
        if not torch.equal(torch.where(taken, copy, stored), stored):
            raise AnatomyError(
                f"{site}: what is read of {where} is not what is stored there; describe its layout otherwise."
            )


class OutputCheck:
    """Check, for the length of a `with` block, that modules give x Wᵀ + b, with W and b as they are read.

    It is done at once, for some models go on to add to what a module gave in place (Falcon).

    Args:
        model: whose modules they are.
        anatomy: of that model.
        sites: whose matrices can be read and tapped; those of a module that is not called are passed over.

    Raises:
        AnatomyError: a module gave something else.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, sites: Iterable[WeightSite]) -> None:
        self.reached: list[WeightSite] = []
        """The sites whose modules were called."""
        self._model, self._anatomy = model, anatomy
        self._sites: dict[nn.Module, list[WeightSite]] = {}
        for site in sites:
            self._sites.setdefault(anatomy.tapped_module(model, site), []).append(site)

    def __enter__(self) -> "OutputCheck":
        self._handles = [module.register_forward_hook(self._check) for module in self._sites]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _check(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        for site in self._sites[module]:
            self.reached.append(site)
            _refuse_other_output(self._model, self._anatomy, site, arguments[0], output)


def _refuse_other_output(
    model: PreTrainedModel, anatomy: Anatomy, site: WeightSite, inputs: Tensor, outputs: Tensor
) -> None:
    matrix, given = anatomy.read_weight(model, site), anatomy.outputs_in(outputs.detach(), site).float()
    where = anatomy.module_path(site)
    if (matrix.shape[0], matrix.shape[1]) != (given.shape[-1], inputs.shape[-1]):
        raise AnatomyError(
            f"{site}: {where} makes {given.shape[-1]} features of {inputs.shape[-1]}, and the matrix that is read "
            f"{matrix.shape[0]} of {matrix.shape[1]}; correct the spelling's transposed."
        )
    expected = inputs.float() @ matrix.float().T
    bias = getattr(anatomy.module(model, site), "bias", None)
    if isinstance(bias, Tensor):
        expected = expected + anatomy.outputs_in(bias.detach(), site).float()
    off = (given - expected).norm() / given.norm().clamp_min(1e-20)
    if off > rounding_of(outputs.dtype):
        raise AnatomyError(
            f"{site}: what {where} gives is not its input times the matrix that is read, plus its bias; it is off by {off:.1%} "
            "of its size: correct the spelling's path or transposed."
        )
