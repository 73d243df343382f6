"""What a Transformer is made of, and how to read and write its matrices as (out, in)."""

import dataclasses
import operator
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.families import FAMILIES, Family, Spelling
from strop.anatomy.families.fused import interleaves_heads
from strop.anatomy.sites import HEADED, MatrixType, Stack, Stream, StreamSite, WeightSite
from strop.anatomy.sizes import StackSizes, config_of, refuse_router, sizes_of
from strop.anatomy.slices import columns_view, matrix_view, rows_view
from strop.anatomy.unknown import describe_unknown
from strop.errors import AnatomyError, SiteError, UneditableWeightError, UnknownArchitectureError


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A model's parts, as a value: it holds no weights, and every method that reads some is handed the model.

    Build it with `Anatomy.of(model)`.

    Args:
        family: how the model's parts are spelled.
        stacks: the sizes of each list of blocks; a decoder-only model has one, without a name.
    """

    family: Family
    stacks: Mapping[Stack | None, StackSizes]

    @classmethod
    def of(cls, model: PreTrainedModel, *, family: Family | None = None) -> "Anatomy":
        """Return a model's anatomy.

        Args:
            model: a model of transformers with its head on.
            family: the spelling of an architecture Strop does not know.

        Raises:
            UnknownArchitectureError: no family covers the model; the message shows what was found and how to
                describe it.
            AnatomyError: its config does not say how large its parts are, or its heads are packed otherwise.
        """
        chosen = family or next((known for known in FAMILIES if model.config.model_type in known.model_types), None)
        if chosen is None:
            raise UnknownArchitectureError(describe_unknown(model))
        _refuse_other_packing(model, chosen)
        return cls(chosen, {stack: sizes_of(model, chosen, stack) for stack in chosen.paths})

    @property
    def layer_count(self) -> int:
        """How many blocks the main stack has."""
        return self._main.layer_count

    def layers_of(self, stack: Stack | None) -> int:
        """Return how many blocks a stack has, the main one by default.

        Raises:
            SiteError: the model has no such stack.
        """
        stack = stack if stack is not None else self.family.main_stack
        return self._sizes(stack, where=f"{stack}").layer_count

    @property
    def hidden_size(self) -> int:
        """The size of the main stack's hidden states."""
        return self._main.hidden_size

    @property
    def head_count(self) -> int:
        """How many query heads the main stack's attention has."""
        return self._main.head_count

    @property
    def key_value_head_count(self) -> int:
        """How many key/value heads the main stack's attention has."""
        return self._main.key_value_head_count

    @property
    def head_size(self) -> int:
        """The size of one head of the main stack's attention."""
        return self._main.head_size

    @property
    def _main(self) -> StackSizes:
        return self.stacks[self.family.main_stack]

    def context(self, model: PreTrainedModel) -> int:
        """Return how many tokens the model can read at once; a very large number where it does not say."""
        config = config_of(model, None)
        longest: int = getattr(config, "max_position_embeddings", None) or 10**9
        return longest - (config.pad_token_id + 1 if self.family.positions_after_padding else 0)

    @property
    def matrix_types(self) -> tuple[MatrixType, ...]:
        """The matrix types a block of the main stack has."""
        return tuple(self.family.matrices_of(self.family.main_stack))

    def sites(
        self,
        *,
        layers: Collection[int] | None = None,
        matrix_types: Collection[MatrixType] | None = None,
        stack: Stack | None = None,
    ) -> tuple[WeightSite, ...]:
        """Return the addresses of whole matrices, layer by layer; each expert of a mixture has its own.

        Args:
            layers: all by default.
            matrix_types: all the stack has by default.
            stack: the main one by default.

        Raises:
            SiteError: the model has no such stack, layer or matrix type.
        """
        stack = stack if stack is not None else self.family.main_stack
        sizes = self._sizes(stack, where=f"{stack}")
        chosen_types = tuple(self.family.matrices_of(stack)) if matrix_types is None else tuple(matrix_types)
        chosen_layers = range(sizes.layer_count) if layers is None else sorted(layers)
        found = tuple(
            WeightSite(layer, matrix_type, expert=expert, stack=stack)
            for layer in chosen_layers
            for matrix_type in chosen_types
            for expert in self._experts(stack, layer, matrix_type)
        )
        for site in found:
            self.spelling(site)
        return found

    def _experts(self, stack: Stack | None, layer: int, matrix_type: MatrixType) -> Iterable[int | None]:
        """Return the experts that have such a matrix, none in a layer without a mixture; (None,) where it is the block's."""
        spelling, counts = self.family.matrices_of(stack).get(matrix_type), self.stacks[stack].expert_counts
        if spelling is None or not spelling.has_experts or not any(counts) or not 0 <= layer < len(counts):
            return (None,)
        return range(counts[layer])

    def _sizes(self, stack: Stack | None, *, where: str) -> StackSizes:
        if stack not in self.stacks:
            if set(self.stacks) == {None}:
                raise SiteError(f"{where}: a {self.family.name} model has one stack, which has no name; leave it out.")
            has = ", ".join("one without a name" if name is None else name for name in self.stacks)
            raise SiteError(f"{where}: a {self.family.name} model has these stacks: {has}; choose one of them.")
        return self.stacks[stack]

    def _sizes_at(self, site: WeightSite | StreamSite) -> StackSizes:
        sizes = self._sizes(site.stack, where=str(site))
        if site.layer >= sizes.layer_count:
            owner = "this model" if site.stack is None else f"the {site.stack}"
            raise SiteError(f"{site}: {owner} has layers 0 to {sizes.layer_count - 1}.")
        return sizes

    def spelling(self, site: WeightSite) -> Spelling:
        """Return where in a block the site's matrix lives.

        Raises:
            SiteError: the model has no such stack, layer, matrix type, head or expert.
        """
        sizes, spellings = self._sizes_at(site), self.family.matrices_of(site.stack)
        if site.matrix_type not in spellings:
            has = ", ".join(spellings)
            raise SiteError(f"{site}: a {self.family.name} block has no {site.matrix_type} matrix; it has {has}.")
        spelling = spellings[site.matrix_type]
        if site.head is not None and site.head >= sizes.heads_of(site.matrix_type):
            raise SiteError(
                f"{site}: the {site.matrix_type} matrix has heads 0 to {sizes.heads_of(site.matrix_type) - 1}."
            )
        if spelling.has_experts:
            self._refuse_other_experts(site, spelling, sizes.expert_counts[site.layer])
        elif site.expert is not None and any(sizes.expert_counts):
            raise SiteError(f"{site}: all experts share the {site.matrix_type} matrix; leave the expert out.")
        elif site.expert is not None:
            raise SiteError(f"{site}: a {self.family.name} block has no experts.")
        return spelling

    def _refuse_other_experts(self, site: WeightSite, spelling: Spelling, count: int) -> None:
        if not count:
            parameter = f".{spelling.parameter}" if spelling.experts else ""
            where = f"{spelling.module_path(0)}{parameter}"
            raise SiteError(f"{site}: the block has no {where}, where a {self.family.name} block keeps its experts.")
        if site.expert is None:
            raise SiteError(f"{site}: each of the block's {count} experts has its own; choose one of 0 to {count - 1}.")
        if site.expert >= count:
            raise SiteError(f"{site}: the block has experts 0 to {count - 1}.")

    def blocks(self, model: PreTrainedModel, stack: Stack | None = None) -> nn.ModuleList:
        """Return a list of the model's blocks: of the main stack, or of the one that is named.

        Raises:
            SiteError: the model has no such stack.
        """
        stack = stack if stack is not None else self.family.main_stack
        self._sizes(stack, where=f"{stack}")
        found: nn.ModuleList = operator.attrgetter(self.family.paths[stack])(model)
        return found

    def module(self, model: PreTrainedModel, site: WeightSite) -> nn.Module:
        """Return the module that holds the site's matrix, alone or packed with others."""
        path = self.spelling(site).module_path(site.expert)
        try:
            module: nn.Module = operator.attrgetter(path)(self.blocks(model, site.stack)[site.layer])
        except AttributeError:
            raise AnatomyError(f"{site}: the block has no {path}, where a {self.family.name} block keeps it.") from None
        return module

    def tapped_module(self, model: PreTrainedModel, site: WeightSite) -> nn.Module:
        """Return the module whose inputs and outputs are those of the site's matrix.

        Raises:
            AnatomyError: there is none, for the matrix is a part of a parameter that a larger module reads.
        """
        self._refuse_raw(site)
        return self.module(model, site)

    def _refuse_raw(self, site: WeightSite) -> None:
        spelling = self.spelling(site)
        if not spelling.is_tappable:
            of = "of one expert " if spelling.experts else ""
            raise AnatomyError(
                f"{site}: what goes in and out {of}cannot be seen, for {self.module_path(site)} computes it inside from its "
                f"parameter {spelling.parameter}; use what reads the weights alone, such as a rank reduction."
            )

    def stream_module(self, model: PreTrainedModel, site: StreamSite) -> nn.Module:
        """Return the module whose output the site's hidden states are: a tensor, or a tuple that begins with it.

        Raises:
            SiteError: the model has no such stack or layer, or the states are not one module's output.
        """
        self._sizes_at(site)
        if site.stream is Stream.BLOCK:
            return self.blocks(model, site.stack)[site.layer]
        spelling = self.family.matrices_of(site.stack).get(site.writer.matrix_type)
        if spelling is not None and spelling.has_experts:
            raise SiteError(
                f"{site}: several experts make these states, and no one matrix; choose the stream {Stream.BLOCK}."
            )
        return self.tapped_module(model, site.writer)

    def module_path(self, site: WeightSite) -> str:
        """Return the module's dotted name inside the model."""
        inside = self.spelling(site).module_path(site.expert)
        return f"{self.family.paths[site.stack]}.{site.layer}.{inside}"

    def parameter(self, model: PreTrainedModel, site: WeightSite) -> nn.Parameter:
        """Return the parameter that holds the site's matrix, alone or with others.

        Raises:
            UneditableWeightError: the weight is quantised, offloaded, or not a floating-point matrix.
            AnatomyError: there is no such module, or it has no such parameter.
        """
        spelling, module = self.spelling(site), self.module(model, site)
        name = f"{self.module_path(site)}.{spelling.parameter}"
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is not None or getattr(model, "is_quantized", False):
            method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", "an unknown method")
            raise UneditableWeightError(
                f"{name} is quantised ({getattr(method, 'value', method)}), and a low-rank edit needs its real values; "
                "load the model dequantised or in its original precision."
            )
        weight = getattr(module, spelling.parameter, None)
        if weight is None:
            raise AnatomyError(
                f"{site}: {self.module_path(site)} has no {spelling.parameter}; name the module that holds the matrix."
            )
        if not isinstance(weight, nn.Parameter) or not weight.is_floating_point() or weight.ndim not in (2, 3):
            raise UneditableWeightError(f"{name} is not a floating-point matrix parameter and cannot be edited.")
        if (weight.ndim == 3) != (spelling.experts == "stacked"):
            wanted = "the matrices of several experts" if spelling.experts else "one matrix"
            raise UneditableWeightError(f"{name} has the shape {tuple(weight.shape)}, which is not that of {wanted}.")
        if site.matrix_type is MatrixType.GATE and not spelling.has_experts:
            refuse_router(model, weight, name)
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

        Raises:
            UneditableWeightError: the tensor's sizes are not those of what it is said to hold.
        """
        return matrix_view(parameter, site, self.spelling(site), self.stacks[site.stack]).flatten(0, -2)

    def write_matrix(self, parameter: Tensor, site: WeightSite, matrix: Tensor) -> None:
        """Write a matrix (out, in) into its place in a tensor laid out as the site's parameter is.

        Raises:
            UneditableWeightError: the tensor's sizes are not those of what it is said to hold.
        """
        place = matrix_view(parameter, site, self.spelling(site), self.stacks[site.stack])
        place.copy_(matrix.reshape(place.shape))

    def read_weight(self, model: PreTrainedModel, site: WeightSite) -> Tensor:
        """Return a site's matrix (out, in), detached, in the model's dtype."""
        with torch.no_grad():
            return self.matrix_in(self.parameter(model, site).detach(), site)

    def outputs_in(self, outputs: Tensor, site: WeightSite) -> Tensor:
        """Return the share of a module's output (…, features), or of its gradient, that the site's matrix makes.

        Returns:
            (…, out).

        Raises:
            AnatomyError: no module's output is that of the site's matrix.
            UneditableWeightError: the features are not those of what the module is said to hold.
        """
        self._refuse_raw(site)
        features_first = outputs.movedim(-1, 0)
        flat = features_first.reshape(features_first.shape[0], -1)
        chosen = rows_view(flat, site, self.spelling(site), self.stacks[site.stack]).flatten(0, -2)
        return chosen.reshape(chosen.shape[0], *features_first.shape[1:]).movedim(0, -1)

    def output_features(self, parameter: Tensor, site: WeightSite) -> tuple[int, Tensor]:
        """Return how many outputs the module makes that holds a site's matrix, and which of them the matrix makes.

        Args:
            parameter: the module's weight.
            site: one head's share, or the whole matrix.

        Returns:
            The count, and (out,) indices below it, one for each row of the matrix.

        Raises:
            AnatomyError: no module's output is that of the site's matrix.
        """
        count = parameter.shape[1 if self.spelling(site).transposed else 0]
        return count, self.outputs_in(torch.arange(count, device=parameter.device), site)

    def inputs_in(self, inputs: Tensor, site: WeightSite) -> Tensor:
        """Return the share of a module's input (…, in) that the site's matrix reads: one head's, or all.

        Raises:
            AnatomyError: no module's input is that of the site's matrix.
        """
        self._refuse_raw(site)
        return columns_view(inputs, site, self.stacks[site.stack])

    def heads_of(self, matrix_type: MatrixType, stack: Stack | None = None) -> int:
        """Return how many heads share an attention matrix of this type, in the main stack by default."""
        return self.stacks[stack if stack is not None else self.family.main_stack].heads_of(matrix_type)


def _refuse_other_packing(model: PreTrainedModel, family: Family) -> None:
    """Raise AnatomyError if heads are said to be stacked in a matrix that is known to hold them one after another."""
    for stack in family.paths:
        for spelling in family.matrices_of(stack).values():
            if spelling.packing == "stacked" and HEADED & {*spelling.packed} and interleaves_heads(model.config):
                raise AnatomyError(
                    f"{spelling.path}: this {type(model).__name__} keeps query, key and value of each head together, and not one "
                    "below the other; describe them with packing: interleaved."
                )
