"""Loss against layer and rank, from the trials of a sweep: LASER's Figure 2."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from strop.runs import KeptTrial


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTable:
    """What single edits did to the loss, matrix type by matrix type."""

    base: float | None
    """Loss of the model the edits were tried on, on as many examples; None where it was not scored."""
    examples: int
    """How many each trial was scored on."""
    losses: Mapping[str, Mapping[float, Mapping[int, float]]]
    """matrix type → share of the rank that is kept → layer → loss in nats per token."""

    @property
    def count(self) -> int:
        """How many edits were tried."""
        return sum(len(layers) for shares in self.losses.values() for layers in shares.values())

    @property
    def lowest(self) -> tuple[str, float, int, float]:
        """The matrix type, share, layer and loss of the trial with the lowest loss."""
        every = (
            (name, share, layer, loss)
            for name, shares in self.losses.items()
            for share, layers in shares.items()
            for layer, loss in layers.items()
        )
        return min(every, key=lambda each: each[3])


def loss_by_layer_and_rank(trials: Sequence[KeptTrial]) -> SweepTable | None:
    """Return the losses of single rank reductions by matrix type, share kept and layer (LASER, arXiv 2312.13558, Figure 2).

    Those of whole matrices in the first round count, on as many examples as most of them were scored on: of a race, on its first
    share.

    Args:
        trials: of a search.

    Returns:
        The table; None where fewer than three reductions were tried.

    >>> def trial(**candidate):
    ...     return KeptTrial(study="s", method="rank_reduction" if candidate else "base", stage="", round=1, split="select",
    ...                      examples=8, candidate=candidate, accuracy=0.5, loss=2.0 + candidate.get("layer", 0))
    >>> tried = [trial(layer=layer, matrix_type="up", rank_fraction=0.1) for layer in range(3)]
    >>> found = loss_by_layer_and_rank([trial(), *tried])
    >>> found.base, found.losses["up"][0.1], found.lowest
    (2.0, {0: 2.0, 1: 3.0, 2: 4.0}, ('up', 0.1, 0, 2.0))
    """
    tried = [
        own for own in trials
        if own.method == "rank_reduction" and own.round == 1 and {"layer", "matrix_type"} <= set(own.candidate)
        and "subspaces" not in own.candidate
    ]  # fmt: skip
    if len(tried) < 3:
        return None
    counts = [own.examples for own in tried]
    examples = max(set(counts), key=lambda count: (counts.count(count), count))
    losses: dict[str, dict[float, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for own in tried:
        if own.examples == examples:
            share = round(float(own.candidate["rank_fraction"]), 6)
            losses[str(own.candidate["matrix_type"])][share][int(own.candidate["layer"])] = own.loss
    before = {
        own.method: own.loss
        for own in trials
        if own.examples == examples and (own.method in ("base", "start") or (not own.candidate and own.round == 1))
    }
    ordered = {
        name: {share: dict(sorted(losses[name][share].items())) for share in sorted(losses[name])}
        for name in sorted(losses)
    }
    base = before.get("start", before.get("base", before.get("rank_reduction")))  # of a race, "no edit" on a share
    return SweepTable(base=base, examples=examples, losses=ordered)
