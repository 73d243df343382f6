"""How answers hold in other words, before and after: LASER's paraphrase robustness, from what was asked once and kept."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from strop.files import write_json
from strop.runs.reading import DAMAGED, reading
from strop.statistics import Comparison, compare_differences

PARAPHRASES_FILE = "paraphrases.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactInWords:
    """One fact in all its wordings."""

    row: int
    group: int
    """Facts of one number are one observation."""
    before: tuple[bool, ...]
    """Whether the answer to each wording was right: the example's own prompt first, then its paraphrases."""
    after: tuple[bool, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParaphraseTable:
    """How answers hold in other words."""

    facts: int
    """That have paraphrases."""
    wordings: int
    """Paraphrases that were asked, apart from the facts' own prompts."""
    right_before: float
    """Share of paraphrases answered right, 0 to 1."""
    right_after: float
    whole_before: float
    """Share of facts answered right in every wording."""
    whole_after: float
    robust_before: float | None
    """The same share, of those facts that are right in their own prompt; None where none is."""
    robust_after: float | None
    comparison: Comparison
    """Of the facts answered right in every wording."""


def paraphrase_robustness(facts: Sequence[FactInWords], *, seed: int = 0) -> ParaphraseTable | None:
    """Return how many facts are right in every wording, before and after (LASER, arXiv 2312.13558, section 5.1).

    Args:
        facts: in all their wordings.
        seed: of what is drawn at random.

    Returns:
        The table; None where no fact has a paraphrase.

    >>> asked = [FactInWords(row=n, group=n, before=(True, False), after=(True, n > 0)) for n in range(4)]
    >>> found = paraphrase_robustness(asked)
    >>> found.whole_before, found.whole_after, found.robust_after, found.comparison.fixed
    (0.0, 0.75, 0.75, 3)
    """
    asked = [own for own in facts if len(own.before) > 1]
    if not asked:
        return None
    whole = np.array([(all(own.before), all(own.after)) for own in asked], dtype=np.float64)
    own = np.array([(fact.before[0], fact.after[0]) for fact in asked], dtype=bool)
    others = np.array([pair for fact in asked for pair in zip(fact.before[1:], fact.after[1:], strict=True)])
    groups = np.unique([fact.group for fact in asked], return_inverse=True)[1].astype(np.int64)
    robust = [float(whole[own[:, side], side].mean()) if own[:, side].any() else None for side in (0, 1)]
    return ParaphraseTable(
        facts=len(asked),
        wordings=len(others),
        right_before=float(others[:, 0].mean()),
        right_after=float(others[:, 1].mean()),
        whole_before=float(whole[:, 0].mean()),
        whole_after=float(whole[:, 1].mean()),
        robust_before=robust[0],
        robust_after=robust[1],
        comparison=compare_differences(whole[:, 1] - whole[:, 0], groups=groups, right_or_wrong=True, seed=seed),
    )


def write_paraphrases(folder: Path, facts: Sequence[FactInWords]) -> Path:
    """Keep what was asked in a run's folder, and return the file's path.

    Args:
        folder: of the run.
        facts: in all their wordings.
    """
    path = folder / PARAPHRASES_FILE
    write_json(path, {"format": FORMAT, "facts": [dataclasses.asdict(own) for own in facts]})
    return path


def read_paraphrases(folder: Path) -> tuple[FactInWords, ...]:
    """Read what a run's folder holds of it; nothing where nobody asked.

    Args:
        folder: of the run.

    Raises:
        RunError: the file cannot be read.
    """
    path = folder / PARAPHRASES_FILE
    if not path.is_file():
        return ()
    with reading(path, otherwise=DAMAGED):
        return tuple(
            FactInWords(**{**own, "before": tuple(own["before"]), "after": tuple(own["after"])})
            for own in json.loads(path.read_text(encoding="utf-8"))["facts"]
        )
