"""What the base's own text resists: the Fisher information of the changes of all singular values, and prices made of it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite, input_device
from strop.errors import UsageError
from strop.files import cache_folder
from strop.linalg import SingularValueDecomposition
from strop.progress import SILENT, Progress
from strop.proving import Assignment, texts_beside_drift
from strop.scoring import Batch, Resources, Texts, writes
from strop.scoring.encoding import batches_of
from strop.scoring.forms import TokenSequence
from strop.searching.effect_plan import EffectPlan
from strop.searching.effects import Effects, measure_effects, refuse_unknown_effects
from strop.searching.kept_vectors import keep_vectors, kept_vectors


@dataclasses.dataclass(frozen=True, eq=False)
class TextSample:
    """Texts of one length, of which every token behind the prompt is predicted."""

    model: PreTrainedModel
    anatomy: Anatomy
    batches: Sequence[Batch]
    example_count: int

    @classmethod
    def of(
        cls, model: PreTrainedModel, rows: Sequence[tuple[int, ...]], prompt: int, *, anatomy: Anatomy
    ) -> "TextSample":
        """Return some texts, as tokens of which the first so many are the prompt's."""
        sequences = [TokenSequence(row, prompt, number, 0) for number, row in enumerate(rows)]
        batches = batches_of(sequences, "perplexity", device=input_device(model), resources=Resources.of(model))
        return cls(model, anatomy, batches, len(sequences))


FISHER_TEXTS = 32
"""Texts of the base's own that its Fisher information is taken over, by default."""


@dataclasses.dataclass(frozen=True, eq=False)
class OwnTexts:
    """Texts a base wrote itself, before anything was put on it.

    Args:
        texts: other ones than drift is measured on.
        fingerprint: of the base's weights.
    """

    texts: tuple[Texts, ...]
    fingerprint: str

    @property
    def of_one_length(self) -> dict[tuple[int, int], list[tuple[int, ...]]]:
        """The texts as rows of tokens, by how many they have and how many of these are the prompt's."""
        found: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for part in self.texts:
            found.setdefault((part.ids.shape[1], part.prompt_tokens), []).extend(map(tuple, part.ids.tolist()))
        return found

    @property
    def tokens(self) -> int:
        """Tokens of one pass over them."""
        return sum(part.ids.numel() for part in self.texts)

    @property
    def digest(self) -> str:
        """What tells them from other texts."""
        rows = [[*lengths, rows] for lengths, rows in self.of_one_length.items()]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @classmethod
    def of(cls, given: Assignment, *, count: int, progress: Progress = SILENT) -> "OwnTexts":
        """Return texts of an assignment's model, sampled from it as it is now or read from the cache.

        Raises:
            UsageError: the model writes no text.
        """
        if not writes(given.model, given.anatomy):
            raise UsageError(
                f"{type(given.model).__name__} writes no text of its own, and what that resists is asked for: leave out "
                "price_weight (--price-weight), and sharpen with precondition 'sign' or 'none' (--precondition)."
            )
        fingerprint = given.base.fingerprint
        texts = texts_beside_drift(
            given.model, given.tokenizer, fingerprint=fingerprint, count=count, progress=progress
        )
        return cls(texts, fingerprint)


def fisher_information(
    given: Assignment,
    own: OwnTexts,
    sites: Sequence[WeightSite],
    *,
    decompositions: Callable[[WeightSite], SingularValueDecomposition],
    progress: Progress = SILENT,
) -> dict[WeightSite, Tensor]:
    """Return the Fisher information of each singular value's change, of text the base writes itself.

    F_i = E_{x ~ p} (∂ log p(x) / ∂d_i)² per token, at d = 0, where W = U diag(σ ⊙ (1 + d)) Vᵀ; to second order
    KL(p ‖ p_d) = ½ Σ_ij F_ij d_i d_j. It depends on the base alone and is kept in Strop's cache under its fingerprint; with a
    recipe on, it is that of the model with the recipe, and is not kept.

    Args:
        given: the model, with what it begins with on.
        own: texts of the base.
        sites: whose singular values.
        decompositions: the sites', of the matrices as they are.
        progress: told of each block.

    Returns:
        For each site (rank,) float64, in nats per token.
    """
    ranks = {site: len(decompositions(site).singular_values) for site in sites}
    path = _path_of(own, ranks) if not given.start else None
    kept = kept_vectors(path, ranks) if path is not None else None
    if kept is not None:
        return kept
    groups = own.of_one_length
    count = sum(map(len, groups.values()))
    total = {site: torch.zeros(rank, dtype=torch.float64) for site, rank in ranks.items()}
    for (tokens, prompt), rows in groups.items():
        found = measure_effects(
            TextSample.of(given.model, rows, prompt, anatomy=given.anatomy),
            sites,
            decompose=given.decompose,
            plan=EffectPlan(reduction="squares"),
            decompositions=decompositions,
            stage="asking the base's own text what it resists",
            progress=progress,
        )
        for site, effects in found.items():
            total[site] += effects.score * ((tokens - prompt) * len(rows) / count)
    refuse_unknown_effects({site: Effects(resisted, resisted) for site, resisted in total.items()})
    if path is not None and all(bool(torch.isfinite(resisted).all()) for resisted in total.values()):
        keep_vectors(path, total)
    return total


def priced(
    effects: Mapping[WeightSite, Effects], fisher: Mapping[WeightSite, Tensor], weight: float
) -> dict[WeightSite, Effects]:
    """Return effects to which what each removal costs elsewhere is added, and by which components are ranked.

    Removing component i is d_i = −1, and its price ½ F_i, in nats of drift per token to second order. What is ranked by is
    the predicted change of the loss + weight · ½ F_i.

    Args:
        effects: of the components.
        fisher: F, of the same.
        weight: nats of the task's loss that a nat of drift is worth.
    """
    found = {}
    for site, own in effects.items():
        change = own.loss_change + weight * fisher[site] / 2
        found[site] = Effects(change, change)
    return found


def _path_of(own: OwnTexts, ranks: Mapping[WeightSite, int]) -> Path:
    settings = json.dumps([[[str(site), rank] for site, rank in ranks.items()], own.digest])
    digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
    return cache_folder() / "fisher" / f"{own.fingerprint}-{digest}.safetensors"
