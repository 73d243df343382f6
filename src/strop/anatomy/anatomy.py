"""What a Transformer is made of, and how to read and write its matrices as (out, in)."""

import dataclasses
import itertools
import operator
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family, Spelling
from strop.anatomy.families.fused import interleaves_heads
from strop.anatomy.place import Place
from strop.anatomy.reading import Reading, check_given, read_model
from strop.anatomy.sites import HEADED, MatrixType, Stack, Stream, StreamSite, WeightSite
from strop.anatomy.sizes import StackSizes, config_of, sizes_of
from strop.errors import AnatomyError, SiteError, UneditableWeightError


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A model's parts, as a value: it holds no weights, and every method that reads some is handed the model.

    Build it with `Anatomy.of(model)`.

    Args:
        family: how the model's parts are spelled.
        stacks: the sizes of each list of blocks; a decoder-only model has one, without a name.
        reading: whether the family was read or given, and what forward passes showed of it.
    """

    family: Family
    stacks: Mapping[Stack | None, StackSizes]
    reading: Reading = dataclasses.field(compare=False)

    @classmethod
    def of(cls, model: PreTrainedModel, *, family: Family | None = None) -> "Anatomy":
        """Return a model's anatomy.

        Args:
            model: a model of transformers with its head on.
            family: the spelling, where it is not to be read from the model itself.

        Raises:
            UnknownArchitectureError: the model could not be read; the message shows what was found and how to describe it.
            AnatomyError: its config does not say how large its parts are; or the family that was given is not how it is made:
                the message says what forward passes showed.
        """
        if family is not None:
            _refuse_other_packing(model, family)
            sizes = _all_sizes(model, family)
            return cls(family, sizes, check_given(model, family, sizes))
        reading = read_model(model)
        return cls(reading.family, _all_sizes(model, reading.family), reading)

    @property
    def origin(self) -> str:
        """Where the family comes from, in words: it was given, or read from the model's modules and perhaps checked."""
        source = "given by a description" if self.reading.given else "read from the modules"
        if self.reading.obstacle:
            return f"{source}; no forward pass could check it: {self.reading.obstacle}"
        return f"{source} and checked by forward passes"

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

    def channels(self, model: PreTrainedModel) -> int:
        """Return how many channels the images have that a model looks at; 3 where it does not say."""
        return int(getattr(config_of(model, None), "num_channels", None) or 3)

    @property
    def matrix_types(self) -> tuple[MatrixType, ...]:
        """The matrix types that blocks of the main stack have."""
        return tuple(self.family.matrices_of(self.family.main_stack))

    def sites(
        self,
        *,
        layers: Collection[int] | None = None,
        matrix_types: Collection[MatrixType] | None = None,
        stack: Stack | None = None,
    ) -> tuple[WeightSite, ...]:
        """Return the addresses of whole matrices, layer by layer; each expert of a mixture has its own.

        Where blocks differ, a layer gives what it has of the matrix types.

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
        chosen_layers = tuple(range(sizes.layer_count)) if layers is None else tuple(sorted(layers))
        for layer, matrix_type in itertools.product(chosen_layers, chosen_types):
            self._refuse_unknown(WeightSite(layer, matrix_type, stack=stack))
        found = tuple(
            WeightSite(layer, matrix_type, expert=expert, stack=stack)
            for layer in chosen_layers
            for matrix_type in chosen_types
            if matrix_type in sizes.spellings[layer]
            for expert in self._experts(stack, layer, matrix_type)
        )
        for site in found:
            self.spelling(site)
        return found

    def _experts(self, stack: Stack | None, layer: int, matrix_type: MatrixType) -> Iterable[int | None]:
        """Return the experts that have such a matrix; (None,) where it is the block's."""
        sizes = self.stacks[stack]
        if not sizes.spellings[layer][matrix_type].has_experts or not any(sizes.expert_counts):
            return (None,)
        return range(sizes.expert_counts[layer])

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
        sizes, spelling = self._sizes_at(site), self._spelled(site)
        if site.head is not None and not sizes.head_count:
            raise SiteError(f"{site}: a {self.family.name} model has no attention heads; leave the head out.")
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

    def _spelled(self, site: WeightSite) -> Spelling:
        """Return how the site's block spells the matrix.

        Raises:
            SiteError: it has none, or no block has.
        """
        self._refuse_unknown(site)
        own = self.stacks[site.stack].spellings[site.layer]
        if site.matrix_type not in own:
            raise SiteError(
                f"{site}: this layer has no {site.matrix_type} matrix, as others have; it has {', '.join(own)}."
            )
        return own[site.matrix_type]

    def _refuse_unknown(self, site: WeightSite) -> None:
        """Raise SiteError if the model has no such layer, or no layer such a matrix."""
        self._sizes_at(site)
        known = self.family.matrices_of(site.stack)
        if site.matrix_type not in known:
            raise SiteError(
                f"{site}: a {self.family.name} block has no {site.matrix_type} matrix; it has {', '.join(known)}."
            )

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

    def place(self, site: WeightSite) -> Place:
        """Return where the site's matrix is stored.

        Raises:
            SiteError: the model has no such stack, layer, matrix type, head or expert.
        """
        return Place(site, self.spelling(site), self.stacks[site.stack], self.family)

    def module(self, model: PreTrainedModel, site: WeightSite) -> nn.Module:
        """Return the module that holds the site's matrix, alone or packed with others."""
        return self.place(site).module(model)

    def tapped_module(self, model: PreTrainedModel, site: WeightSite) -> nn.Module:
        """Return the module whose inputs and outputs are those of the site's matrix.

        Raises:
            AnatomyError: there is none, for the matrix is a part of a parameter that a larger module reads.
        """
        place = self.place(site)
        place.refuse_raw()
        return place.module(model)

    def stream_module(self, model: PreTrainedModel, site: StreamSite) -> nn.Module:
        """Return the module whose output the site's hidden states are: a tensor, or a tuple that begins with it.

        Raises:
            SiteError: the model has no such stack or layer, or the states are not one module's output.
        """
        self._sizes_at(site)
        if site.stream is Stream.BLOCK:
            return self.blocks(model, site.stack)[site.layer]
        spelling = self.stacks[site.stack].spellings[site.layer].get(site.writer.matrix_type)
        if spelling is not None and spelling.has_experts:
            raise SiteError(
                f"{site}: several experts make these states, and no one matrix; choose the stream {Stream.BLOCK}."
            )
        return self.tapped_module(model, site.writer)

    def module_path(self, site: WeightSite) -> str:
        """Return the module's dotted name inside the model."""
        return self.place(site).module_path

    def parameter(self, model: PreTrainedModel, site: WeightSite) -> nn.Parameter:
        """Return the parameter that holds the site's matrix, alone or with others.

        Raises:
            UneditableWeightError: the weight is quantised, offloaded, or not a floating-point matrix.
            AnatomyError: there is no such module, or it has no such parameter.
        """
        return self.place(site).parameter(model)

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
        return self.place(site).matrix_in(parameter)

    def write_matrix(self, parameter: Tensor, site: WeightSite, matrix: Tensor) -> None:
        """Write a matrix (out, in) into its place in a tensor laid out as the site's parameter is.

        Raises:
            UneditableWeightError: the tensor's sizes are not those of what it is said to hold.
        """
        self.place(site).write_matrix(parameter, matrix)

    def read_weight(self, model: PreTrainedModel, site: WeightSite) -> Tensor:
        """Return a site's matrix (out, in), detached, in the model's dtype."""
        return self.place(site).read(model)

    def outputs_in(self, outputs: Tensor, site: WeightSite) -> Tensor:
        """Return the share of a module's output (…, features), or of its gradient, that the site's matrix makes.

        Returns:
            (…, out).

        Raises:
            AnatomyError: no module's output is that of the site's matrix.
            UneditableWeightError: the features are not those of what the module is said to hold.
        """
        return self.place(site).outputs_in(outputs)

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
        return self.place(site).output_features(parameter)

    def inputs_in(self, inputs: Tensor, site: WeightSite) -> Tensor:
        """Return the share of a module's input (…, in) that the site's matrix reads: one head's, or all.

        Raises:
            AnatomyError: no module's input is that of the site's matrix.
        """
        return self.place(site).inputs_in(inputs)

    def heads_of(self, matrix_type: MatrixType, stack: Stack | None = None) -> int:
        """Return how many heads share an attention matrix of this type, in the main stack by default."""
        return self.stacks[stack if stack is not None else self.family.main_stack].heads_of(matrix_type)


def _all_sizes(model: PreTrainedModel, family: Family) -> dict[Stack | None, StackSizes]:
    return {stack: sizes_of(model, family, stack) for stack in family.paths}


def _refuse_other_packing(model: PreTrainedModel, family: Family) -> None:
    """Raise AnatomyError if heads are said to be stacked in a matrix that is known to hold them one after another."""
    for stack in family.paths:
        for spelling in itertools.chain(*family.matrices_of(stack).values()):
            if spelling.packing == "stacked" and HEADED & {*spelling.packed} and interleaves_heads(model.config):
                raise AnatomyError(
                    f"{spelling.path}: this {type(model).__name__} keeps query, key and value of each head together, and not one "
                    "below the other; describe them with packing: interleaved."
                )
