"""ReFT's interventions: learned edits of hidden states inside a low-rank subspace, all one formula with parts left out."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from strop.anatomy import StreamSite
from strop.errors import InterventionError, UsageError
from strop.interventions.checks import is_finite, refuse_unknown
from strop.interventions.edit_module import EditModule
from strop.interventions.formulas import ACTIVATIONS, FORMULAS, Activation, Formula, Initialisation
from strop.interventions.interfaces import Entry, Shape, shape_of_size
from strop.interventions.positions import Positions
from strop.linalg import orthonormal_rows


@dataclasses.dataclass(frozen=True)
class LowRankEdit:
    """Edit hidden states inside a learned subspace, at chosen positions.

    loreft: h + Rᵀ(W h + b − R h); direft: h + W₂ᵀ(W h + b); noreft: h + W₂ᵀ(W h + b − W₂ h); consreft: h + Rᵀ(b − R h);
    lobireft: h + Rᵀ b; orthonormal_direft: h + Rᵀ(W h + b), with R Rᵀ = I
    (Wu, Arora et al., ReFT, arXiv 2404.03592, section 3.2 and Table 17)

    Its learned tensors lie beside it in a recipe, in float32: `basis` (rank, hidden), the free matrix whose rows are made
    orthonormal where the formula asks for R; `source` (rank, hidden), W; `bias` (rank,), b.

    Args:
        site: which hidden states.
        method: one of `FORMULAS`.
        rank: of the subspace.
        positions: which tokens.
        activation: applied to W h + b.
        subspaces: names and ranks of parts of the subspace that can be trained and switched by themselves, in the order
            of their rows; together they make up the rank. None by default.

    Raises:
        UsageError: an unknown method or activation, a rank below 1, or subspaces that do not make up the rank.

    >>> print(LowRankEdit(StreamSite(10), "loreft", rank=8, positions=Positions.parse("f7+l7")))
    layer 10 block, loreft of rank 8 at f7+l7
    """

    site: StreamSite
    method: str
    rank: int
    positions: Positions
    activation: Activation = "linear"
    subspaces: tuple[tuple[str, int], ...] = ()
    names: ClassVar[tuple[str, ...]] = tuple(FORMULAS)
    kind: ClassVar[Literal["state"]] = "state"

    def __post_init__(self) -> None:
        if self.method not in FORMULAS:
            raise UsageError(f"'{self.method}' is not a method of editing hidden states ({', '.join(FORMULAS)}).")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is one of {', '.join(ACTIVATIONS)}, not '{self.activation}'.")
        if self.activation != "linear" and not self.formula.reads:
            raise UsageError(f"{self.method} computes nothing from the hidden state, so it has no activation.")
        if self.rank < 1:
            raise UsageError(f"The rank of an edit is 1 or more, not {self.rank}.")
        names = [name for name, _ in self.subspaces]
        if any(rank < 1 for _, rank in self.subspaces) or len(set(names)) < len(names) or not all(names):
            raise UsageError("Subspaces have names of their own and ranks of 1 or more.")
        if self.subspaces and sum(rank for _, rank in self.subspaces) != self.rank:
            raise UsageError(
                f"The ranks of the subspaces ({', '.join(f'{name} {rank}' for name, rank in self.subspaces)}) do not add "
                f"up to the rank, {self.rank}."
            )

    @property
    def formula(self) -> Formula:
        """Which parts its formula has."""
        return FORMULAS[self.method]

    def __str__(self) -> str:
        return f"{self.site}, {self.method} of rank {self.rank} at {self.positions}"

    @property
    def learned_tensors(self) -> tuple[str, ...]:
        """The names of the tensors its formula has."""
        return self.formula.tensors

    def parameter_count(self, shape: Shape) -> int:
        """Return how many numbers it learns: 2·r·d + r where it reads the hidden state, else r·d + r; d = shape[0]."""
        return self.rank * (shape[0] * (2 if self.formula.reads else 1) + 1)

    def initial_tensors(
        self, shape: Shape | int, *, init: Initialisation = "identity", generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors training begins with.

        `paper` draws R at random among orthonormal frames and the rest as torch's Linear does, as the published code: the
        first step sees an edit that is not nothing. `identity` begins with an edit that leaves every state as it is.

        Args:
            shape: of the matrix that writes the hidden states, whose first number, d, is their size; or d alone.
            init: which of the two.
            generator: the source of randomness.

        Raises:
            UsageError: the rank is above the hidden size, or this edit cannot begin as the identity.
        """
        hidden_size = shape_of_size(shape)[0]
        self.refuse_rank_above(hidden_size)
        bound = 1 / math.sqrt(hidden_size)

        def uniform(*shape: int) -> Tensor:
            return (torch.rand(*shape, generator=generator) * 2 - 1) * bound

        if self.formula.orthonormal:
            basis = orthonormal_rows(torch.randn(self.rank, hidden_size, generator=generator)).contiguous()
        else:
            basis = uniform(self.rank, hidden_size)
        if init == "paper":
            bias = uniform(self.rank) if self.formula.reads else torch.rand(self.rank, generator=generator)
            tensors = {"basis": basis, "source": uniform(self.rank, hidden_size), "bias": bias}
        else:
            self._refuse_identity()
            rows = orthonormal_rows(basis) if self.formula.orthonormal else basis.clone()
            source = rows if self.formula.subtracts else torch.zeros(self.rank, hidden_size)
            tensors = {"basis": basis, "source": source, "bias": torch.zeros(self.rank)}
        return {name: tensors[name].contiguous() for name in self.formula.tensors}

    def _refuse_identity(self) -> None:
        constant = self.formula.subtracts and not self.formula.reads
        bent = self.formula.subtracts and self.activation != "linear"
        never_zero, stuck = self.activation == "sigmoid", self.activation == "relu" and not bent
        if constant or bent or never_zero or stuck:
            why = "its activation bends what it would have to put back" if bent else "it puts a constant in its place"
            why = "a sigmoid is never zero" if never_zero else why
            why = "a relu has no slope at zero and nothing would ever be learned" if stuck else why
            raise UsageError(f"{self.method} cannot begin as the identity, for {why}; use init paper.")

    def refuse_rank_above(self, hidden_size: int) -> None:
        """Raise UsageError if the subspace would not fit into hidden states of this size."""
        if self.rank > hidden_size:
            raise UsageError(
                f"{self.site}: a subspace of rank {self.rank} does not fit into hidden states of size {hidden_size}; choose "
                f"a rank of at most {hidden_size}."
            )

    def refuse_other_subspaces(self, names: Collection[str] | None) -> None:
        """Raise UsageError if a name is of no subspace of this edit; None names all."""
        known = [name for name, _ in self.subspaces]
        for name in names or ():
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise UsageError(f"{self.site}: the edit has no subspace '{name}'; {has}.")

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that tensors are the learned ones of this edit.

        Raises:
            InterventionError: one is missing, of another name or shape, or not made of finite numbers.
        """
        refuse_unknown(tensors, self.learned_tensors, where=str(self.site), method=self.method)
        for name in self.learned_tensors:
            wanted = (self.rank,) if name == "bias" else (self.rank, shape[0])
            found = tensors.get(name)
            if found is None or tuple(found.shape) != wanted:
                described = "missing" if found is None else f"of shape {tuple(found.shape)}"
                raise InterventionError(
                    f"{self.site}: {self.method} of rank {self.rank} needs a tensor {name} of shape {wanted} for this model, "
                    f"and the recipe's is {described}; train anew, or load the model it was trained on."
                )
            if not is_finite(found):
                raise InterventionError(f"{self.site}: its {name} is not made of finite numbers; train anew.")

    def lessened(self, tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor] | None:
        """Return share times the edit: b ← share · b and W ← share · W, plus (1 − share) · B where B h is taken away.

        None where something bends W h + b, or where the state's own part is taken away and none read.
        """
        if self.activation != "linear" or (self.formula.subtracts and not self.formula.reads):
            return None
        lesser = {"basis": tensors["basis"], "bias": share * tensors["bias"]}
        if self.formula.reads:
            source = share * tensors["source"]
            if self.formula.subtracts:
                rows = tensors["basis"]
                source = source + (1 - share) * (orthonormal_rows(rows) if self.formula.orthonormal else rows)
            lesser["source"] = source
        return {name: lesser[name] for name in self.formula.tensors}

    def module(self, tensors: Mapping[str, Tensor], hidden_size: int) -> EditModule:
        """Return the edit with its numbers.

        Raises:
            InterventionError: the tensors do not fit.
        """
        return EditModule(self, tensors, hidden_size)

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> str:
        """Return that no weights can hold it."""
        return "a checkpoint's weights cannot hold an edit of hidden states at chosen positions; keep the recipe and apply it."

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with its number of learned parameters."""
        subspaces = {"subspaces": dict(self.subspaces)} if self.subspaces else {}
        return {
            "method": self.method,
            **self.site.to_json(),
            "positions": str(self.positions),
            "rank": self.rank,
            "activation": self.activation,
            **subspaces,
            "parameters": self.parameter_count(shape),
        }

    @classmethod
    def from_json(cls, entry: Entry) -> "LowRankEdit":
        """Return the intervention a recipe's entry describes."""
        layer, rank, subspaces = entry["layer"], entry["rank"], entry.get("subspaces", {})
        if type(layer) is not int or type(rank) is not int:
            raise UsageError(f"its layer and rank are whole numbers, not {layer!r} and {rank!r}.")
        if not isinstance(subspaces, dict) or not all(type(part) is int for part in subspaces.values()):
            raise UsageError("its subspaces are not names with whole numbers.")
        return cls(
            StreamSite.from_json(entry),
            str(entry["method"]),
            rank=rank,
            positions=Positions.parse(str(entry["positions"])),
            activation=entry.get("activation", "linear"),
            subspaces=tuple(subspaces.items()),
        )

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return a line for the edits of each kind, their layers and learned numbers together."""
        together: dict[tuple[str, ...], list[int]] = {}
        for index, entry in enumerate(entries):
            kind = tuple(str(entry[name]) for name in ("method", "stream", "positions", "rank", "activation"))
            together.setdefault(kind, []).append(index)
        return {places[0]: _line([entries[place] for place in places]) for places in together.values()}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return nothing: it leaves matrices alone."""
        return ""


def _line(entries: Sequence[Entry]) -> str:
    first = entries[0]
    layers = sorted({entry["layer"] for entry in entries})
    together = len(layers) == layers[-1] - layers[0] + 1
    shown = f"{layers[0]}-{layers[-1]}" if together else ",".join(map(str, layers))
    where = f"layers {shown}" if len(layers) > 1 else f"layer {layers[0]}"
    parameters = sum(entry["parameters"] for entry in entries)
    bent = "" if first["activation"] == "linear" else f", {first['activation']}"
    named = f" ({', '.join(first['subspaces'])})" if first.get("subspaces") else ""
    return (
        f"{where} {first['stream']}: {first['method']} of rank {first['rank']}{bent}{named} at {first['positions']} "
        f"({parameters:,} learned parameters)"
    )
