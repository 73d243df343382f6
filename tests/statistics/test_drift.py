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
    ],
)
def test_the_verdict_counts_words_as_people_do(changed: float, said: str) -> None:
    assert dataclasses.replace(LASER, kl=changed / 5, changed=changed).verdict == said


@pytest.mark.parametrize(
    ("changed", "kl", "said"),
    [
        (0.0, 0.001, "changes no word the base would say first: hardly noticed in other uses"),
        (0.0, 1.2, "changes no word the base would say first: for this task only"),
        (0.019, 0.05, "changes 1 of 53 words the base would say: try your other uses first"),
        (0.019, 0.6, "changes 1 of 53 words the base would say: for this task only"),
        (0.2, 0.001, "changes 1 of 5 words the base would say: for this task only"),
    ],
)
def test_the_worse_of_words_and_nats_decides(changed: float, kl: float, said: str) -> None:
    assert dataclasses.replace(LASER, kl=kl, changed=changed).verdict == said


def test_one_is_less_than_another_only_where_their_intervals_do_not_overlap() -> None:
    less, middle, more = (dataclasses.replace(LASER, kl=kl, kl_ci95=(kl - 0.1, kl + 0.1)) for kl in (0.2, 0.35, 0.6))
    assert less.is_surely_less_than(more)
    assert not less.is_surely_less_than(middle)
    assert not more.is_surely_less_than(less)
    assert not less.is_surely_less_than(LASER)  # an older version's, without an interval


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
    with_interval = dataclasses.replace(LASER, kl_ci95=(0.5, 0.7))
    assert Drift.from_json(json.loads(json.dumps(with_interval.to_json()))) == with_interval
    least = Drift.from_json({"kl": 0.01, "changed": 0.04, "perplexity_ratio": 1.002})
    assert (least.kl, least.changed, least.texts) == (0.01, 0.04, 1)
    with pytest.raises(KeyError):
        Drift.from_json({"kl": 0.01, "changed": 0.04})


@pytest.mark.parametrize("wrong", [{"changed": 1.1}, {"changed": -0.1}, {"texts": 0}, {"tokens": 0}])
def test_figures_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(LASER, **wrong)


def test_a_users_own_text_is_named() -> None:
    assert str(LASER).endswith("perplexity × 1.740 (64 texts the base wrote itself)")
    assert "drift 0.60 nats per token (0.52 to 0.68), 40" in str(dataclasses.replace(LASER, kl_ci95=(0.52, 0.68)))
    assert "drift 0.60 nats per token, 40" in str(LASER)
    assert str(dataclasses.replace(LASER, source="notes.txt")).endswith("(64 parts of notes.txt)")
