"""Drift: figures that cannot be wrong once built, and what they mean in plain words."""

import dataclasses
import json

import pytest

from strop.errors import UsageError
from strop.statistics import Drift

LASER = Drift(kl=0.6, changed=0.4, perplexity=9.0, perplexity_ratio=1.74, texts=64, tokens=3072)
NOTHING = dataclasses.replace(LASER, kl=0.0, changed=0.0, perplexity_ratio=1.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (0.4, "changes 2 of 5 words the base would say: for this task only"),
        (0.48, "changes 1 of 2 words the base would say: for this task only"),
        (0.31, "changes 1 of 3 words the base would say: for this task only"),
        (0.17, "changes 1 of 6 words the base would say: for this task only"),
        (0.05, "changes 1 of 20 words the base would say: try your other uses first"),
        (0.012, "changes 1 of 83 words the base would say: hardly noticed in other uses"),
        (1.0, "changes all words the base would say: for this task only"),
        (0.98, "changes nearly all words the base would say: for this task only"),
        (0.0, "changes no word the base would say"),
    ],
)
def test_the_verdict_counts_words_as_people_do(changed: float, said: str) -> None:
    assert dataclasses.replace(LASER, changed=changed).verdict == said


def test_only_what_changes_no_bit_is_said_to_change_nothing() -> None:
    assert NOTHING.identical
    assert NOTHING.verdict == "changes nothing the base would say"
    assert not dataclasses.replace(NOTHING, kl=1e-9).identical
    assert not dataclasses.replace(NOTHING, perplexity_ratio=1.0000001).identical


def test_it_is_read_back_from_json_and_null_is_what_is_not_finite() -> None:
    assert Drift.from_json(json.loads(json.dumps(LASER.to_json()))) == LASER
    broken = Drift.from_json({**LASER.to_json(), "kl": None})
    assert broken.kl != broken.kl
    older = {name: value for name, value in LASER.to_json().items() if name != "source"}
    assert Drift.from_json(older) == LASER


@pytest.mark.parametrize("wrong", [{"changed": 1.1}, {"changed": -0.1}, {"texts": 0}, {"tokens": 0}])
def test_figures_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(LASER, **wrong)


def test_a_users_own_text_is_named() -> None:
    assert str(LASER).endswith("perplexity × 1.740 (64 texts the base wrote itself)")
    assert str(dataclasses.replace(LASER, source="notes.txt")).endswith("(64 parts of notes.txt)")
