"""What a model must hold, at the place of an intervention, for a recipe to be about it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.checkpoints import own_tensor
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

        Hidden states are known by the matrix that writes them. Where it cannot be read, for it is quantised or there are
        several, by all that the module holds which writes them.

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
        if entry.kind == "state":
            anatomy.stream_module(model, entry.site)
        try:
            return cls.of(_own_matrix(model, anatomy, site), rounded=rounded)
        except AnatomyError:
            if entry.kind == "weight":
                raise
        try:
            module = anatomy.module(model, site)
        except AnatomyError:
            module = anatomy.stream_module(model, entry.site)
        return cls._of_module(model, module, outputs=anatomy.stacks[site.stack].hidden_size)

    @classmethod
    def _of_module(cls, model: PreTrainedModel, module: nn.Module, *, outputs: int) -> "MatrixIdentity":
        digest = hashlib.sha256()
        stored = [
            *((name, own_tensor(model, parameter)) for name, parameter in module.named_parameters()),
            *module.named_buffers(),
        ]
        for name, tensor in stored:
            digest.update(f"{name}={fingerprint(tensor)};".encode())
        weight = dict(stored).get("weight", stored[0][1] if stored else torch.empty(0))
        inputs = getattr(module, "in_features", None)
        shape = (outputs, inputs if isinstance(inputs, int) else weight.shape[-1])
        return cls(shape, _dtype(weight), digest.hexdigest()[:32])


def _own_matrix(model: PreTrainedModel, anatomy: Anatomy, site: WeightSite) -> Tensor:
    with torch.no_grad():
        return anatomy.matrix_in(own_tensor(model, anatomy.parameter(model, site)).detach(), site)


def _dtype(tensor: Tensor) -> str:
    return _dtype_name(tensor.dtype)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
