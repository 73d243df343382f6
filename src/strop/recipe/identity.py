"""What a model must hold, at the place of an intervention, for a recipe to be about it."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite, storage_of
from strop.checkpoints import fetched, own_tensor
from strop.errors import AnatomyError
from strop.interventions import Intervention
from strop.linalg import fingerprint

NARROWER = (torch.bfloat16, torch.float16)
"""The dtypes in which the same base is loaded to save memory."""


@dataclasses.dataclass(frozen=True)
class MatrixIdentity:
    """What a matrix must be for a recipe to be about it."""

    shape: tuple[int, int]
    """(out, in)."""
    dtype: str
    """As it is stored."""
    fingerprint: str
    rounded: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    """By their names, the narrower dtypes a base is loaded in, each with the fingerprint of the matrix rounded to it."""

    @classmethod
    def of(cls, matrix: Tensor, *, rounded: bool = False) -> "MatrixIdentity":
        """Return a matrix's identity.

        Args:
            matrix: (out, in).
            rounded: say what becomes of it in narrower dtypes too.
        """
        narrower = NARROWER if rounded and matrix.dtype in (torch.float32, torch.float64) else ()
        others = {_dtype_name(dtype): fingerprint(matrix.to(dtype).contiguous()) for dtype in narrower}
        return cls((matrix.shape[0], matrix.shape[1]), _dtype(matrix), fingerprint(matrix.contiguous()), others)

    def to_json(self) -> dict[str, Any]:
        """Return what recipe.json holds of it."""
        content = dataclasses.asdict(self)
        return content if self.rounded else {name: own for name, own in content.items() if name != "rounded"}

    def is_rounded_to(self, other: "MatrixIdentity") -> bool:
        """Return whether another matrix is this one in a narrower dtype."""
        return self.shape == other.shape and self.rounded.get(other.dtype) == other.fingerprint

    @classmethod
    def at(
        cls, model: PreTrainedModel, anatomy: Anatomy, entry: Intervention, *, rounded: bool = False
    ) -> "MatrixIdentity":
        """Return the identity of the matrix by which a recipe knows an intervention's place, as the base model has it.

        Hidden states are known by the matrix that writes them, fetched where it is offloaded. Where it cannot be read, for it
        is quantised or there are several, by all that the module holds which writes them.

        Args:
            model: what is attached to it does not count.
            anatomy: of that model.
            entry: whose place it is.
            rounded: say what becomes of a matrix in narrower dtypes too.

        Raises:
            SiteError: the model has no such place.
            UneditableWeightError: the weight that is to be edited is quantised, offloaded, or not a matrix.
        """
        site = entry.site.writer
        if entry.kind == "weight":
            return cls.of(_own_matrix(model, anatomy, site), rounded=rounded)
        module = anatomy.stream_module(model, entry.site)
        with contextlib.suppress(AnatomyError):
            return cls.of(_readable_matrix(model, anatomy, site), rounded=rounded)
        with contextlib.suppress(AnatomyError):
            module = anatomy.module(model, site)
        return cls._of_module(model, module, outputs=anatomy.stacks[site.stack].hidden_size)

    @classmethod
    def _of_module(cls, model: PreTrainedModel, module: nn.Module, *, outputs: int) -> "MatrixIdentity":
        digest = hashlib.sha256()
        stored = dict(_all_stored(model, module))
        for name, tensor in stored.items():
            digest.update(f"{name}={fingerprint(tensor)};".encode())
        weight = stored.get("weight", next(iter(stored.values()), torch.empty(0)))
        inputs = getattr(module, "in_features", None)
        shape = (outputs, inputs if isinstance(inputs, int) else weight.shape[-1])
        return cls(shape, _dtype(weight), digest.hexdigest()[:32])


def _own_matrix(model: PreTrainedModel, anatomy: Anatomy, site: WeightSite) -> Tensor:
    with torch.no_grad():
        return anatomy.matrix_in(own_tensor(model, anatomy.parameter(model, site)).detach(), site)


def _readable_matrix(model: PreTrainedModel, anatomy: Anatomy, site: WeightSite) -> Tensor:
    """Return a matrix that need not be edited: one that is offloaded is fetched."""
    module, name = anatomy.module(model, site), anatomy.spelling(site).parameter
    stored = storage_of(model, module, name)
    if stored is None or stored.kind != "offloaded":
        return _own_matrix(model, anatomy, site)
    return anatomy.matrix_in(
        fetched(model, f"{anatomy.module_path(site)}.{name}", getattr(module, name)).detach(), site
    )


def _all_stored(model: PreTrainedModel, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield by name all that a module holds, as it is without anything attached, wherever it lies."""
    where = next(name for name, part in model.named_modules() if part is module)
    for name, parameter in module.named_parameters():
        yield name, fetched(model, f"{where}.{name}", own_tensor(model, parameter))
    for name, buffer in module.named_buffers():
        yield name, fetched(model, f"{where}.{name}", buffer)
    computed = getattr(module, "weight", None)
    if computed is not None and not isinstance(computed, Tensor):  # a module of torch.ao
        yield "weight", computed().dequantize()


def _dtype(tensor: Tensor) -> str:
    return _dtype_name(tensor.dtype)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
