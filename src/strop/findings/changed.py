"""Which answers a run's choice fixed, and which it broke."""

import math
from collections.abc import Sequence

from strop.runs import KeptAnswer
from strop.statistics import ChangedAnswer, ChangedAnswers


def changed_examples(answers: Sequence[KeptAnswer], *, most: int | None = None) -> ChangedAnswers | None:
    """Return the examples whose answers became right, or wrong, those first whose loss changed most.

    Args:
        answers: of a run.
        most: of each kind to return; all by default.

    Returns:
        Both kinds; None where nothing is right or wrong.

    >>> right = KeptAnswer(row=1, score="exact", prompt="Lyon is in", wanted="France", before="the", after="France",
    ...                    right_before=False, right_after=True, loss_before=3.0, loss_after=0.5)
    >>> found = changed_examples([right])
    >>> found.fixed_count, found.broken_count, found.fixed[0].after
    (1, 0, 'France')
    """
    if not answers or any(answer.right_before is None for answer in answers):
        return None
    fixed = sorted((own for own in answers if own.fixed), key=_moved)
    broken = sorted((own for own in answers if own.broken), key=lambda own: -_moved(own))
    return ChangedAnswers(
        tuple(map(_changed, fixed[:most])),
        tuple(map(_changed, broken[:most])),
        fixed_count=len(fixed),
        broken_count=len(broken),
    )


def _moved(answer: KeptAnswer) -> float:
    """Return by how much the loss rose; 0 where that is not known."""
    if answer.loss_before is None or answer.loss_after is None:
        return 0.0
    return answer.loss_after - answer.loss_before


def _changed(answer: KeptAnswer) -> ChangedAnswer:
    return ChangedAnswer(
        row=answer.row,
        prompt=answer.prompt,
        wanted=answer.wanted,
        before=answer.before or "",
        after=answer.after or "",
        loss_before=math.nan if answer.loss_before is None else answer.loss_before,
        loss_after=math.nan if answer.loss_after is None else answer.loss_after,
    )
