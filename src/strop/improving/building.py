"""Who is raced when the race is over: learners on the best edits of weights, and a sharpening on the best prompt."""

import dataclasses
from collections.abc import Sequence

from strop.improving.contenders import CONTENDERS, Contender
from strop.improving.entrant import LEAST_OF_A_TURN, Entrant
from strop.improving.entry import Entry
from strop.improving.pace import ASKED
from strop.improving.plan import FamilyName
from strop.improving.preparing import Prepared
from strop.improving.prompts import asked_with, scorer_with
from strop.proving import Assignment, Start

ON_WEIGHTS = ("spectrum", "LoReFT")
"""What is learned on top of the best edits of weights."""
ON_PROMPT, ON_PROMPT_BY = "sharpening on the prompt", "sharpening by signs"
"""What is found with the best prompt's solved rows before each prompt, and by whom."""
LEAST_PASSES_ON_PROMPT = 2.5
"""Passes over a round's examples, each with the prompt before it, that it needs time for: a gradient of few, and a look or two."""


def builders(
    judged: Sequence[Entry],
    given: Assignment,
    families: Sequence[FamilyName],
    *,
    prepared: Prepared,
    tokens_per_example: float,
) -> list[Entrant]:
    """Return who is to build on what: on the prompt first, which costs least and has gained most; then who leads learns on.

    Args:
        judged: in the last round, the best first, those alone that change anything.
        given: what is to be improved.
        families: that are in the running.
        prepared: what was made before the race.
        tokens_per_example: that are read of the task as it is.
    """
    found: list[Entrant] = []
    prompt = next((own for own in judged[:2] if own.contender.family == "prompt"), None)
    if prompt is not None and "sharpen" in families and prepared.lack_of(CONTENDERS[ON_PROMPT_BY]) is None:
        asked = scorer_with(given, prompt.found.shots, ASKED, edited=True)
        longer = max(asked.tokens / asked.example_count / tokens_per_example, 1.0)
        found.append(Entrant(_on_prompt(longer), asked_with(given, prompt.found.shots), prompt))
    if judged and judged[0].contender.learns and judged[0].can_go_on:
        found.append(Entrant(judged[0].contender.for_less(LEAST_OF_A_TURN), given))
    weights = next((own for own in judged if own.found.edits and _edits_weights(own.found.edits)), None)
    for name in ON_WEIGHTS if weights is not None else ():
        base = CONTENDERS[name]
        if (
            base.refusal(given.task) is None
            and base.family in families
            and weights is not None
            and weights.name != name
            and prepared.lack_of(base) is None
        ):
            own = dataclasses.replace(base, name=_on(name, weights.name))
            found.append(Entrant(own, dataclasses.replace(given, start=weights.found.edits), weights))
    return found


def _on_prompt(longer: float) -> Contender:
    """Return who sharpens on a prompt, whose examples are so many times as long."""
    base = CONTENDERS[ON_PROMPT_BY]
    return dataclasses.replace(
        base,
        name=ON_PROMPT,
        size=lambda share, pace: base.size(share, pace.slowed(longer)),
        least_passes=longer * LEAST_PASSES_ON_PROMPT,
        longer=longer,
    )


def all_names() -> tuple[str, ...]:
    """Return every name an entry of a race can have."""
    return (*CONTENDERS, *(_on(name, other) for name in ON_WEIGHTS for other in CONTENDERS), ON_PROMPT)


def _on(name: str, other: str) -> str:
    return f"{name} on {other}"


def _edits_weights(edits: Start) -> bool:
    return edits.head is None and all(own.kind == "weight" for own in edits.interventions)
