"""Deal examples out to train, select and test so that nothing stands on two sides."""

from collections.abc import Mapping, Sequence

import numpy as np

from strop.errors import TaskError
from strop.tasks.examples import Example, group_key
from strop.tasks.task_file import SplitSettings

SPLITS = ("train", "select", "test")
HELD_MANY, HELD_SELECT = 5000, 1000
"""Where there are more held examples than the first, select gets the second; else half of them."""


def sample_categories(examples: Sequence[Example], most: int, *, seed: int) -> list[Example]:
    """Return the examples in their order, of each category a random sample where it has too many.

    A repeated example is kept once. Examples without a category are one of their own.

    Args:
        examples: of one source.
        most: of one category.
        seed: of the samples; a sample of n holds every smaller one.
    """
    distinct = without_repeats(examples)
    taken: dict[str | None, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(len(distinct)).tolist():
        own = taken.setdefault(distinct[index].category, [])
        if len(own) < most:
            own.append(index)
    return [distinct[index] for index in sorted(index for own in taken.values() for index in own)]


def deal(examples: Sequence[Example], settings: SplitSettings) -> dict[str, tuple[Example, ...]]:
    """Deal examples out by shares, keeping together what belongs together.

    Two examples belong together when they are the same (see `Example.identity`) or share a group (see `group_key`). A
    repeated example is kept once. The order is a shuffle by the seed, so any first n of a split are a random sample of it.

    Args:
        examples: of one source.
        settings: the shares and the seed.

    Returns:
        The splits by name; those with a share of zero are empty.

    Raises:
        TaskError: a split with a share would be left empty.
    """
    distinct = without_repeats(examples)
    shuffled = _bundles(distinct)
    np.random.default_rng(settings.seed).shuffle(shuffled)
    shares = {name: getattr(settings, name) for name in SPLITS}
    dealt: dict[str, list[Example]] = {name: [] for name in SPLITS}
    wanted = {name: share * len(distinct) for name, share in shares.items() if share > 0}
    leftover = sum(shares.values()) < 1 - 1e-9
    for bundle in shuffled:
        neediest = max(wanted, key=lambda name: (wanted[name] - len(dealt[name])) / wanted[name])
        if leftover and len(dealt[neediest]) >= wanted[neediest]:
            break
        dealt[neediest].extend(bundle)
    for name in wanted:
        if not dealt[name]:
            raise TaskError(
                f"{len(distinct)} examples in {len(shuffled)} groups leave the {name} split empty; "
                "give more rows, or shares and groups that fit them."
            )
    return {name: tuple(members) for name, members in dealt.items()}


def share_held(examples: Sequence[Example], settings: SplitSettings) -> dict[str, tuple[Example, ...]]:
    """Share held-out examples out between select and test, whole groups at a time, in an order shuffled by the seed.

    Args:
        examples: of the file called held.
        settings: how many select gets, and the seed.

    Returns:
        Both splits by name.

    Raises:
        TaskError: one of them would be left empty.
    """
    distinct = without_repeats(examples)
    wanted = settings.held_select
    if wanted is None:
        wanted = HELD_SELECT if len(distinct) > HELD_MANY else len(distinct) // 2
    shuffled = _bundles(distinct)
    np.random.default_rng(settings.seed).shuffle(shuffled)
    dealt: dict[str, list[Example]] = {"select": [], "test": []}
    for bundle in shuffled:
        dealt["select" if len(dealt["select"]) < wanted else "test"].extend(bundle)
    for name, members in dealt.items():
        if not members:
            raise TaskError(
                f"{len(distinct)} held examples, {wanted} of them for select, leave the {name} split empty; give more rows, "
                "or another held_select."
            )
    return {name: tuple(members) for name, members in dealt.items()}


def _bundles(examples: Sequence[Example]) -> list[list[Example]]:
    """Return examples in bundles that belong together, in the order of their first."""
    bundles: dict[object, list[Example]] = {}
    for example in examples:
        key = example.identity if example.group is None else group_key(example.group)
        bundles.setdefault(key, []).append(example)
    return list(bundles.values())


def without_repeats(examples: Sequence[Example]) -> list[Example]:
    """Return the examples in their order, each once."""
    return list({example.identity: example for example in reversed(examples)}.values())[::-1]


def without_overlap(splits: Mapping[str, Sequence[Example]]) -> dict[str, tuple[Example, ...]]:
    """Return the splits without what stands in two of them: select and train give way to test, train to select."""
    kept: dict[str, tuple[Example, ...]] = {}
    seen: set[tuple[str, object]] = set()
    for name in reversed(SPLITS):
        kept[name] = tuple(example for example in splits.get(name, ()) if seen.isdisjoint(_keys([example])))
        seen.update(_keys(kept[name]))
    return {name: kept[name] for name in splits}


def refuse_overlap(splits: Mapping[str, Sequence[Example]]) -> None:
    """Raise TaskError if an example, or a group, of the test split is in another split, or one of select in train.

    Raises:
        TaskError: naming the first such row of both splits.
    """
    held = [name for name in ("test", "select", "train") if splits.get(name)]
    for index, name in enumerate(held):
        mine = _keys(splits[name])
        for other in held[index + 1 :]:
            for key, theirs in _keys(splits[other]).items():
                if key in mine:
                    what = (
                        "the same prompt and answer"
                        if isinstance(key[1], tuple)
                        else f"the same group '{mine[key].group}'"
                    )
                    raise TaskError(
                        f"The {name} and {other} splits overlap: row {mine[key].row} of {name} and row {theirs.row} of "
                        f"{other} have {what}; remove one, for a gain measured on seen examples is none."
                    )


def _keys(examples: Sequence[Example]) -> dict[tuple[str, object], Example]:
    keys: dict[tuple[str, object], Example] = {}
    for example in examples:
        keys.setdefault(("identity", example.identity), example)
        if example.group is not None:
            keys.setdefault(("group", group_key(example.group)), example)
    return keys
