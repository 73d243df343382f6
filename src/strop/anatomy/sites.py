"""Addresses inside a model."""

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from strop.errors import SiteError, UsageError

Kind = TypeVar("Kind", bound=enum.StrEnum)


class MatrixType(enum.StrEnum):
    """The weight matrices of a block (τ in LASER's paper, whose U_in is `up`, or `gate` on Llama)."""

    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    QUERY_DOWN = "query_down"
    """Where attention makes its queries in two steps (DeepSeek): from the hidden state to a shorter vector."""
    QUERY_UP = "query_up"
    """From that shorter vector to the queries of all heads."""
    KEY_VALUE_DOWN = "key_value_down"
    """From the hidden state to the shorter vector that keys and values are made of."""
    KEY_VALUE_UP = "key_value_up"
    """From that shorter vector to the keys and values of all heads."""
    SHARED_GATE = "shared_gate"
    """The gate of the expert that every token of a mixture reaches."""
    SHARED_UP = "shared_up"
    SHARED_DOWN = "shared_down"
    MIXER_IN = "mixer_in"
    """From the hidden state to the channels of a state-space mixer (Mamba)."""
    MIXER_SELECT = "mixer_select"
    """From those channels to what of each token the mixer's state takes up, keeps and gives back: Δ, B and C."""
    MIXER_STEP = "mixer_step"
    """From the shorter Δ to a time step for each channel."""
    MIXER_OUT = "mixer_out"
    """From the mixer's channels back to the hidden state."""

    @classmethod
    def parse(cls, text: str) -> "MatrixType":
        """Return the type named `text`.

        Raises:
            SiteError: there is no such type; embeddings and the LM head are named as what they are.

        >>> MatrixType.parse("up")
        <MatrixType.UP: 'up'>
        """
        word = text.strip().lower()
        if word in {"embedding", "embeddings", "embed", "embed_tokens", "wte", "lm_head", "head", "unembedding"}:
            raise SiteError(
                f"'{text}' cannot be edited: embeddings and the LM head are left alone, for they are often one tied "
                f"matrix; choose among {', '.join(cls)}."
            )
        return _named(cls, text, "matrix type")


HEADED = frozenset({MatrixType.QUERY, MatrixType.KEY, MatrixType.VALUE})
"""The matrices whose rows are those of one head after another."""
ATTENTION = HEADED | {MatrixType.OUTPUT}


class Stack(enum.StrEnum):
    """A list of blocks of a model that has several; the one list of a decoder-only model has no name."""

    ENCODER = "encoder"
    DECODER = "decoder"
    VISION = "vision"
    CROSS = "cross"
    """The decoder's blocks again: what of them reads the encoder."""

    @classmethod
    def parse(cls, text: str) -> "Stack":
        """Return the stack named `text`.

        Raises:
            SiteError: there is no such stack.

        >>> Stack.parse("encoder")
        <Stack.ENCODER: 'encoder'>
        """
        return _named(cls, text, "stack of blocks")


@functools.total_ordering
@dataclasses.dataclass(frozen=True)
class WeightSite:
    """One weight matrix, or one head's share of an attention matrix.

    Sites are ordered by stack, layer, matrix type, head and expert; where there is none comes first.

    Args:
        layer: counted from 0.
        matrix_type: which matrix of the block.
        head: one head of an attention matrix; a key/value head where these are grouped; the whole matrix by default.
        expert: one expert of a mixture.
        stack: which list of blocks, where the model has several.

    Raises:
        SiteError: a negative index, or a head of an MLP matrix.

    >>> print(WeightSite(28, MatrixType.UP))
    layer 28 up
    """

    layer: int
    matrix_type: MatrixType
    head: int | None = None
    expert: int | None = None
    stack: Stack | None = None

    def __post_init__(self) -> None:
        for name in ("layer", "head", "expert"):
            index = getattr(self, name)
            if index is not None and index < 0:
                raise SiteError(f"{'An' if name == 'expert' else 'A'} {name} is counted from 0; {index} is not one.")
        if self.head is not None and self.matrix_type not in ATTENTION:
            raise SiteError(f"A {self.matrix_type} matrix has no heads; leave the head out.")

    @property
    def after_block(self) -> bool:
        """Whether an edit falls on what the whole block made; here it falls inside the block."""
        return False

    @property
    def writer(self) -> "WeightSite":
        """The matrix a recipe knows the address by: itself."""
        return self

    def overlaps(self, other: "WeightSite") -> bool:
        """Return whether an edit of one changes the other: the same matrix, or a head of it."""
        whole, other_whole = (dataclasses.replace(site, head=None) for site in (self, other))
        return whole == other_whole and (self.head == other.head or self.head is None or other.head is None)

    def to_json(self) -> dict[str, int | str]:
        """Return the address as a recipe's entry holds it."""
        head = {} if self.head is None else {"head": self.head}
        expert = {} if self.expert is None else {"expert": self.expert}
        return {"layer": self.layer, "matrix_type": str(self.matrix_type), **head, **expert, **_stack_entry(self.stack)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "WeightSite":
        """Return the address an entry of a recipe names.

        Raises:
            UsageError: an index is not a whole number.
            SiteError: there is no such address in any model.

        >>> print(WeightSite.from_json({"layer": 3, "matrix_type": "down", "expert": 7}))
        layer 3 down expert 7
        """
        layer, matrix_type = _index(entry, "layer"), MatrixType.parse(str(entry["matrix_type"]))
        head, expert = (_index(entry, name) if entry.get(name) is not None else None for name in ("head", "expert"))
        return cls(layer, matrix_type, head=head, expert=expert, stack=_stack_named(entry))

    def __lt__(self, other: object) -> bool:
        return self._place < other._place if isinstance(other, WeightSite) else NotImplemented

    @property
    def _place(self) -> tuple[str, int, str, int, int]:
        head, expert = (-1 if index is None else index for index in (self.head, self.expert))
        return (self.stack or "", self.layer, self.matrix_type, head, expert)

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        expert = "" if self.expert is None else f" expert {self.expert}"
        return f"{_before_layer(self.stack)}layer {self.layer} {self.matrix_type}{head}{expert}"


class Stream(enum.StrEnum):
    """A place in a Transformer block where hidden states, (batch, tokens, hidden), can be edited."""

    BLOCK = "block"
    """The residual stream as the block leaves it."""
    ATTENTION = "attention"
    """The output of attention's output matrix: what it adds to the residual stream, but for a norm some families have there."""
    MLP = "mlp"
    """The output of the MLP's down matrix: what it adds to the residual stream, but for a norm some families have there."""

    @classmethod
    def parse(cls, text: str) -> "Stream":
        """Return the stream named `text`.

        Raises:
            SiteError: there is no such stream.

        >>> Stream.parse("block")
        <Stream.BLOCK: 'block'>
        """
        return _named(cls, text, "stream of hidden states")


@functools.total_ordering
@dataclasses.dataclass(frozen=True)
class StreamSite:
    """Where hidden states are edited.

    Args:
        layer: counted from 0.
        stream: which states of that layer.
        stack: which list of blocks, where the model has several.

    Raises:
        SiteError: a negative layer.

    >>> print(StreamSite(3))
    layer 3 block
    """

    layer: int
    stream: Stream = Stream.BLOCK
    stack: Stack | None = None

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise SiteError(f"A layer is counted from 0; {self.layer} is not one.")

    @property
    def after_block(self) -> bool:
        """Whether an edit falls on what the whole block made; else it falls inside the block."""
        return self.stream is Stream.BLOCK

    @property
    def writer(self) -> WeightSite:
        """The matrix whose output comes last on the way to these states."""
        matrix_type = MatrixType.OUTPUT if self.stream is Stream.ATTENTION else MatrixType.DOWN
        return WeightSite(self.layer, matrix_type, stack=self.stack)

    def to_json(self) -> dict[str, int | str]:
        """Return the address as a recipe's entry holds it."""
        return {"layer": self.layer, "stream": str(self.stream), **_stack_entry(self.stack)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "StreamSite":
        """Return the address an entry of a recipe names; the block's states where it names no stream.

        Raises:
            UsageError: the layer is not a whole number.
            SiteError: there is no such address in any model.

        >>> print(StreamSite.from_json({"layer": 3, "stream": "mlp", "stack": "encoder"}))
        encoder layer 3 mlp
        """
        return cls(_index(entry, "layer"), Stream.parse(str(entry.get("stream", "block"))), stack=_stack_named(entry))

    def __lt__(self, other: object) -> bool:
        return self._place < other._place if isinstance(other, StreamSite) else NotImplemented

    @property
    def _place(self) -> tuple[str, int, str]:
        return (self.stack or "", self.layer, self.stream)

    def __str__(self) -> str:
        return f"{_before_layer(self.stack)}layer {self.layer} {self.stream}"


Site = WeightSite | StreamSite
"""Any address an intervention may have."""


def _stack_entry(stack: Stack | None) -> dict[str, str]:
    return {} if stack is None else {"stack": str(stack)}


def _stack_named(entry: Mapping[str, Any]) -> Stack | None:
    return Stack.parse(str(entry["stack"])) if entry.get("stack") is not None else None


def _before_layer(stack: Stack | None) -> str:
    return "" if stack is None else f"{stack} "


def _index(entry: Mapping[str, Any], name: str) -> int:
    if type(entry[name]) is not int:
        raise UsageError(f"its {name} is {entry[name]!r}, not a whole number.")
    index: int = entry[name]
    return index


def parse_layers(text: str, layer_count: int) -> tuple[int, ...]:
    """Return the layers a text such as `all`, `20-29` or `0,4,8-11` names, in order, none twice.

    Args:
        text: `all`, numbers, ranges with both ends included, or a comma-separated list of these.
        layer_count: how many layers the model has.

    Raises:
        SiteError: the text is not of that form, or names a layer the model has not.

    >>> parse_layers("0,4-6", 8)
    (0, 4, 5, 6)
    """
    if text.strip() == "all":
        return tuple(range(layer_count))
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SiteError(f"'{text}' does not name layers; write them as 20-29, as 0,4,8 or as all.")
        lowest, highest = int(first), int(last if dash else first)
        if lowest > highest:
            raise SiteError(f"'{text}': the range {lowest}-{highest} runs backwards; write {highest}-{lowest}.")
        if highest >= layer_count:
            raise SiteError(f"'{text}' names a layer this model has not: it has layers 0 to {layer_count - 1}.")
        layers |= set(range(lowest, highest + 1))
    return tuple(sorted(layers))


def _named(kinds: type[Kind], text: str, called: str) -> Kind:
    """Return the one of a kind that a text names."""
    word = text.strip().lower()
    if word not in set(kinds):
        raise SiteError(f"'{text}' is not a {called}; choose among {', '.join(kinds)}.")
    return kinds(word)
