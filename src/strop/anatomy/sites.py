"""Addresses inside a model."""

import dataclasses
import enum

from strop.errors import SiteError


class MatrixType(enum.StrEnum):
    """The weight matrices of a Transformer block (τ in LASER's paper, whose U_in is `up`, or `gate` on Llama)."""

    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    GATE = "gate"
    UP = "up"
    DOWN = "down"

    @classmethod
    def parse(cls, text: str) -> "MatrixType":
        """Return the type named `text`.

        Raises:
            SiteError: there is no such type; embeddings and the LM head are named as what they are.

        >>> MatrixType.parse("up")
        <MatrixType.UP: 'up'>
        """
        word = text.strip().lower()
        if word in set(cls):
            return cls(word)
        if word in {"embedding", "embeddings", "embed", "embed_tokens", "wte", "lm_head", "head", "unembedding"}:
            raise SiteError(
                f"'{text}' cannot be edited: embeddings and the LM head are left alone, for they are often one tied "
                f"matrix; choose among {', '.join(cls)}."
            )
        raise SiteError(f"'{text}' is not a matrix type; choose among {', '.join(cls)}.")


ATTENTION = frozenset({MatrixType.QUERY, MatrixType.KEY, MatrixType.VALUE, MatrixType.OUTPUT})


@dataclasses.dataclass(frozen=True, order=True)
class WeightSite:
    """One weight matrix, or one head's share of an attention matrix.

    Args:
        layer: counted from 0.
        matrix_type: which matrix of the block.
        head: one head of an attention matrix; a key/value head where these are grouped; the whole matrix by default.
        expert: one expert of a mixture.

    Raises:
        SiteError: a negative index, or a head of an MLP matrix.

    >>> print(WeightSite(28, MatrixType.UP))
    layer 28 up
    """

    layer: int
    matrix_type: MatrixType
    head: int | None = None
    expert: int | None = None

    def __post_init__(self) -> None:
        for name in ("layer", "head", "expert"):
            index = getattr(self, name)
            if index is not None and index < 0:
                raise SiteError(f"A {name} is counted from 0; {index} is not one.")
        if self.head is not None and self.matrix_type not in ATTENTION:
            raise SiteError(f"A {self.matrix_type} matrix has no heads; leave the head out.")

    def overlaps(self, other: "WeightSite") -> bool:
        """Return whether an edit of one changes the other: the same matrix, or a head of it."""
        same = (self.layer, self.matrix_type, self.expert) == (other.layer, other.matrix_type, other.expert)
        return same and (self.head == other.head or self.head is None or other.head is None)

    def to_json(self) -> dict[str, int | str]:
        """Return the address as a recipe's entry holds it."""
        head = {} if self.head is None else {"head": self.head}
        return {"layer": self.layer, "matrix_type": str(self.matrix_type), **head}

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        expert = "" if self.expert is None else f" expert {self.expert}"
        return f"layer {self.layer} {self.matrix_type}{head}{expert}"


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
        word = text.strip().lower()
        if word not in set(cls):
            raise SiteError(f"'{text}' is not a stream of hidden states; choose among {', '.join(cls)}.")
        return cls(word)


@dataclasses.dataclass(frozen=True, order=True)
class StreamSite:
    """Where hidden states are edited.

    Args:
        layer: counted from 0.
        stream: which states of that layer.

    Raises:
        SiteError: a negative layer.

    >>> print(StreamSite(3))
    layer 3 block
    """

    layer: int
    stream: Stream = Stream.BLOCK

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise SiteError(f"A layer is counted from 0; {self.layer} is not one.")

    @property
    def writer(self) -> WeightSite:
        """The matrix whose output comes last on the way to these states."""
        return WeightSite(self.layer, MatrixType.OUTPUT if self.stream is Stream.ATTENTION else MatrixType.DOWN)

    def to_json(self) -> dict[str, int | str]:
        """Return the address as a recipe's entry holds it."""
        return {"layer": self.layer, "stream": str(self.stream)}

    def __str__(self) -> str:
        return f"layer {self.layer} {self.stream}"


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
