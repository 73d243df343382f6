"""Few-shot prompts: the same solved rows of the train split before every prompt (Brown et al., arXiv 2005.14165)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from strop.errors import TaskError
from strop.tasks.examples import Example, Shot, group_key
from strop.tasks.task_file import ShotSettings

ENDS = ("\n", "\n\n")
"""What follows a shot: a line break where prompts and answers have none (half a point to two better than a blank line on
world-facts, with SmolLM2-135M), else a blank line."""


def with_shots_before(
    splits: Mapping[str, tuple[Example, ...]], settings: ShotSettings, *, task: str
) -> dict[str, tuple[Example, ...]]:
    """Return splits whose examples have shots: the first train rows in the order of the seed, the same for all.

    A row is never shown to itself, to one with its prompt and answer or to its group: the next rows of that order are in the
    place of these.

    Args:
        splits: by name.
        settings: how many, and by which seed.
        task: its name, for an error.

    Raises:
        TaskError: there is no train split, or it has too few rows.
    """
    train = splits.get("train", ())
    if not train:
        raise TaskError(
            f"Task {task} has no train split to take shots from; give it a share under splits: in the task file."
        )
    drawn = [train[index] for index in np.random.default_rng(settings.seed).permutation(len(train))]
    each_once = {(example.prompt, example.answer): example for example in reversed(drawn)}
    order = list(each_once.values())[::-1]
    common = _first(order, settings.count, task)
    end = ENDS[any("\n" in text for example in train for text in (example.prompt, example.answer))]
    shots = _as_shots(common, end)
    shown = _keys(common)
    return {
        name: tuple(
            dataclasses.replace(
                example,
                shots=shots
                if shown.isdisjoint(_keys([example]))
                else _as_shots(_first(_others(order, example), settings.count, task), end),
            )
            for example in members
        )
        for name, members in splits.items()
    }


def shown_text(example: Example) -> str:
    r"""Return a prompt with its shots before it.

    >>> shown_text(Example("3 + 4 =", " 7", shots=(Shot("1 + 1 =", " 2"),)))
    '1 + 1 = 2\n3 + 4 ='
    """
    return "".join([*(shot.prompt + shot.answer + shot.end for shot in example.shots), example.prompt])


def stops_of_shots(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return where a model that was shown others goes on with a next one: at what follows a shot, unless an answer has it."""
    ends = {shot.end for example in examples if example.chat is None for shot in example.shots}
    answers = {answer for example in examples for answer in (example.answer, *(shot.answer for shot in example.shots))}
    return tuple(end for end in sorted(ends) if end and not any(end in answer for answer in answers))


def _first(order: Sequence[Example], count: int, task: str) -> Sequence[Example]:
    if len(order) < count:
        raise TaskError(
            f"Task {task} has {len(order)} train rows that may be shown before a prompt, too few for {count} shots; ask for "
            "fewer, or give train a larger share."
        )
    return order[:count]


def _others(order: Sequence[Example], example: Example) -> list[Example]:
    own = _keys([example])
    return [other for other in order if own.isdisjoint(_keys([other]))]


def _keys(examples: Sequence[Example]) -> set[object]:
    """Return what an example may not share with what is shown to it."""
    groups = {("group", group_key(example.group)) for example in examples if example.group is not None}
    return {*groups, *((example.prompt, example.answer) for example in examples)}


def _as_shots(examples: Sequence[Example], end: str) -> tuple[Shot, ...]:
    return tuple(Shot(example.prompt, example.answer, end) for example in examples)
