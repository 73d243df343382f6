"""What a Transformer is made of, and how to read and write its matrices as (out, in)."""

import dataclasses
import operator
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.families import FAMILIES, Family, Spelling
from strop.anatomy.sites import ATTENTION, MatrixType, Stream, StreamSite, WeightSite
from strop.anatomy.unknown import describe_unknown
from strop.errors import AnatomyError, SiteError, UneditableWeightError, UnknownArchitectureError


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A model's parts, as a value: it holds no weights, and every method that reads some is handed the model.

    Build it with `Anatomy.of(model)`.
    """

    family: Family
    layer_count: int
    hidden_size: int
    head_count: int
    key_value_head_count: int
    head_size: int

    @classmethod
    def of(cls, model: PreTrainedModel, *, family: Family | None = None) -> "Anatomy":
        """Return a model's anatomy.

        Args:
            model: a causal language model of transformers, or a classifier.
            family: the spelling of an architecture Strop does not know.

        Raises:
            UnknownArchitectureError: no family covers the model; the message shows what was found and how to
                describe it.
        """
        config: Any = model.config
        chosen = family or next((known for known in FAMILIES if config.model_type in known.model_types), None)
        if chosen is None:
            raise UnknownArchitectureError(describe_unknown(model))
        try:
            blocks = operator.attrgetter(chosen.blocks)(model)
        except AttributeError:
            raise UnknownArchitectureError(
                f"{type(model).__name__} has no {chosen.blocks}, where a {chosen.name} model keeps its blocks; "
                "load it with its head (AutoModelForCausalLM or AutoModelForSequenceClassification), or describe it with a "
                "Family of its own."
            ) from None
        heads = config.num_attention_heads
        return cls(
            family=chosen,
            layer_count=len(blocks),
            hidden_size=config.hidden_size,
            head_count=heads,
            key_value_head_count=getattr(config, "num_key_value_heads", None) or heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        )

    def context(self, model: PreTrainedModel) -> int:
        """Return how many tokens the model can read at once; a very large number where it does not say."""
        longest: int = getattr(model.config, "max_position_embeddings", None) or 10**9
        return longest - (model.config.pad_token_id + 1 if self.family.positions_after_padding else 0)

    @property
    def matrix_types(self) -> tuple[MatrixType, ...]:
        """The matrix types a block of this family has."""
        return tuple(self.family.matrices)

    def sites(
        self, *, layers: Collection[int] | None = None, matrix_types: Collection[MatrixType] | None = None
    ) -> tuple[WeightSite, ...]:
        """Return the addresses of whole matrices, layer by layer.

        Args:
            layers: all by default.
            matrix_types: all the family has by default.

        Raises:
            SiteError: the model has no such layer or matrix type.
        """
        chosen_types = self.matrix_types if matrix_types is None else tuple(matrix_types)
        chosen_layers = range(self.layer_count) if layers is None else sorted(layers)
        found = tuple(WeightSite(layer, matrix_type) for layer in chosen_layers for matrix_type in chosen_types)
        for site in found:
            self.spelling(site)
        return found

    def spelling(self, site: WeightSite) -> Spelling:
        """Return where in a block the site's matrix lives.

        Raises:
            SiteError: the model has no such layer, matrix type, head or expert.
        """
        if site.layer >= self.layer_count:
            raise SiteError(f"{site}: this model has layers 0 to {self.layer_count - 1}.")
        if site.matrix_type not in self.family.matrices:
            has = ", ".join(self.matrix_types)
            raise SiteError(f"{site}: a {self.family.name} block has no {site.matrix_type} matrix; it has {has}.")
        if site.head is not None and site.head >= self.heads_of(site.matrix_type):
            raise SiteError(
                f"{site}: the {site.matrix_type} matrix has heads 0 to {self.heads_of(site.matrix_type) - 1}."
            )
        if site.expert is not None:
            raise SiteError(f"{site}: a {self.family.name} block has no experts.")
        return self.family.matrices[site.matrix_type]

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        """Return the list of the model's blocks."""
        found: nn.ModuleList = operator.attrgetter(self.family.blocks)(model)
        return found

    def module(self, model: PreTrainedModel, site: WeightSite) -> nn.Module:
        """Return the module that holds the site's matrix, alone or packed with others."""
        path = self.spelling(site).path
        try:
            module: nn.Module = operator.attrgetter(path)(self.blocks(model)[site.layer])
        except AttributeError:
            raise AnatomyError(f"{site}: the block has no {path}, where a {self.family.name} block keeps it.") from None
        return module

    def stream_module(self, model: PreTrainedModel, site: StreamSite) -> nn.Module:
        """Return the module whose output the site's hidden states are: a tensor, or a tuple that begins with it.

        Raises:
            SiteError: the model has no such layer.
        """
        if site.layer >= self.layer_count:
            raise SiteError(f"{site}: this model has layers 0 to {self.layer_count - 1}.")
        if site.stream is Stream.BLOCK:
            return self.blocks(model)[site.layer]
        return self.module(model, site.writer)

    def module_path(self, site: WeightSite) -> str:
        """Return the module's dotted name inside the model."""
        return f"{self.family.blocks}.{site.layer}.{self.spelling(site).path}"

    def parameter(self, model: PreTrainedModel, site: WeightSite) -> nn.Parameter:
        """Return the parameter that holds the site's matrix.

        Raises:
            UneditableWeightError: the weight is quantised, offloaded, or not a floating-point matrix.
            AnatomyError: there is no such module, or it has no weight.
        """
        weight = getattr(self.module(model, site), "weight", None)
        name = f"{self.module_path(site)}.weight"
        if weight is None:
            raise AnatomyError(
                f"{site}: {self.module_path(site)} has no weight; name the module that holds the matrix."
            )
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is not None or getattr(model, "is_quantized", False):
            method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", "an unknown method")
            raise UneditableWeightError(
                f"{name} is quantised ({getattr(method, 'value', method)}), and a low-rank edit needs its real values; "
                "load the model dequantised or in its original precision."
            )
        if not isinstance(weight, nn.Parameter) or weight.ndim != 2 or not weight.is_floating_point():
            raise UneditableWeightError(f"{name} is not a floating-point matrix parameter and cannot be edited.")
        if weight.device.type == "meta":
            raise UneditableWeightError(f"{name} is offloaded to disk or CPU; load the model without offloading.")
        return weight

    def refuse_tied(self, model: PreTrainedModel, sites: Iterable[WeightSite]) -> None:
        """Raise UneditableWeightError if a site's parameter serves anywhere else in the model too."""
        names: dict[nn.Parameter, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, []).append(name)
        for site in sites:
            first, *others = names[self.parameter(model, site)]
            if others:
                raise UneditableWeightError(
                    f"{first} is tied to {' and '.join(others)}: an edit of one would change the other; untie them first."
                )

    def matrix_in(self, parameter: Tensor, site: WeightSite) -> Tensor:
        """Return the site's matrix inside a tensor laid out as its parameter is (the weight, or its gradient).

        Returns:
            (out, in); a view of `parameter` wherever the packing allows, else a copy.
        """
        spelling = self.spelling(site)
        stored = parameter.T if spelling.transposed else parameter
        if spelling.packing == "interleaved":
            parts = self._interleaved(stored, spelling)[:, spelling.packed.index(site.matrix_type)]
            return parts[site.head] if site.head is not None else parts.reshape(-1, stored.shape[1])
        start, stop = self._rows(spelling, site.matrix_type, stored.shape[0])
        return self._head_in(stored[start:stop], site)

    def write_matrix(self, parameter: Tensor, site: WeightSite, matrix: Tensor) -> None:
        """Write a matrix (out, in) into its place in a tensor laid out as the site's parameter is."""
        spelling = self.spelling(site)
        stored = parameter.T if spelling.transposed else parameter
        if spelling.packing == "interleaved":
            parts = self._interleaved(stored, spelling)[:, spelling.packed.index(site.matrix_type)]
            if site.head is not None:
                parts[site.head] = matrix
            else:
                parts.copy_(matrix.reshape(parts.shape))
            return
        start, stop = self._rows(spelling, site.matrix_type, stored.shape[0])
        self._head_in(stored[start:stop], site).copy_(matrix)

    def read_weight(self, model: PreTrainedModel, site: WeightSite) -> Tensor:
        """Return a site's matrix (out, in), detached, in the model's dtype."""
        with torch.no_grad():
            return self.matrix_in(self.parameter(model, site).detach(), site)

    def outputs_in(self, outputs: Tensor, site: WeightSite) -> Tensor:
        """Return the share of a module's output (…, features), or of its gradient, that the site's matrix makes.

        Returns:
            (…, out).
        """
        spelling = self.spelling(site)
        features_first = outputs.movedim(-1, 0)
        flat = features_first.reshape(features_first.shape[0], -1)
        if spelling.packing == "interleaved":
            parts = self._interleaved(flat, spelling)[:, spelling.packed.index(site.matrix_type)]
            chosen = parts[site.head] if site.head is not None else parts.reshape(-1, flat.shape[1])
        else:
            start, stop = self._rows(spelling, site.matrix_type, flat.shape[0])
            chosen = flat[start:stop]
            if site.head is not None and site.matrix_type is not MatrixType.OUTPUT:
                chosen = chosen[site.head * self.head_size : (site.head + 1) * self.head_size]
        return chosen.reshape(-1, *features_first.shape[1:]).movedim(0, -1)

    def output_features(self, parameter: Tensor, site: WeightSite) -> tuple[int, Tensor]:
        """Return how many outputs the module makes that holds a site's matrix, and which of them the matrix makes.

        Args:
            parameter: the module's weight.
            site: one head's share, or the whole matrix.

        Returns:
            The count, and (out,) indices below it, one for each row of the matrix.
        """
        count = parameter.shape[1 if self.spelling(site).transposed else 0]
        return count, self.outputs_in(torch.arange(count, device=parameter.device), site)

    def inputs_in(self, inputs: Tensor, site: WeightSite) -> Tensor:
        """Return the share of a module's input (…, in) that the site's matrix reads: one head's, or all."""
        if site.head is None or site.matrix_type is not MatrixType.OUTPUT:
            return inputs
        return inputs[..., site.head * self.head_size : (site.head + 1) * self.head_size]

    def heads_of(self, matrix_type: MatrixType) -> int:
        """Return how many heads share an attention matrix of this type."""
        grouped = matrix_type in (MatrixType.KEY, MatrixType.VALUE)
        return self.key_value_head_count if grouped else self.head_count

    def _interleaved(self, stored: Tensor, spelling: Spelling) -> Tensor:
        return stored.view(self.head_count, len(spelling.packed), self.head_size, stored.shape[1])

    def _rows(self, spelling: Spelling, matrix_type: MatrixType, stored_rows: int) -> tuple[int, int]:
        if spelling.packing == "whole":
            return 0, stored_rows
        sizes = [
            self.heads_of(part) * self.head_size if part in ATTENTION else stored_rows // len(spelling.packed)
            for part in spelling.packed
        ]
        index = spelling.packed.index(matrix_type)
        return sum(sizes[:index]), sum(sizes[: index + 1])

    def _head_in(self, matrix: Tensor, site: WeightSite) -> Tensor:
        if site.head is None:
            return matrix
        share = slice(site.head * self.head_size, (site.head + 1) * self.head_size)
        return matrix[:, share] if site.matrix_type is MatrixType.OUTPUT else matrix[share]
