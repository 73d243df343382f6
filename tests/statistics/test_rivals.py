"""Rivals as values: when one is as good, when a model has collapsed to one answer, and what a result file holds."""

import json

import pytest

from strop.statistics import Comparison, MostSaid, Rival, Rivals


def rival(low: float, high: float, **fields: object) -> Rival:
    gain = (low + high) / 2
    return Rival(0.25, 2.0, 200, Comparison(gain, (low, high), 0.5, 3, 4), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "as_good", "better"),
    [(-0.2, -0.1, True, True), (-0.1, 0.1, True, False), (0.0, 0.1, True, False), (0.01, 0.1, False, False)],
)
def test_a_rival_is_as_good_where_the_edit_is_not_better_beyond_the_interval(
    low: float, high: float, as_good: bool, better: bool
) -> None:
    found = rival(low, high)
    assert (found.is_as_good, found.is_better) == (as_good, better)


@pytest.mark.parametrize(
    ("share", "right", "base", "collapsed"),
    [
        (0.97, 0.62, 0.30, True),  # the majority class, and little else
        (1.0, 0.88, 0.5, True),  # always, where that is nearly always right
        (0.97, 0.62, 0.99, False),  # the base did so already
        (0.70, 0.62, 0.30, False),  # the edit says it about as often as it is right
        (0.40, 0.25, 0.27, True),  # one of four choices, far too often
        (0.12, 0.01, 0.119, False),  # a word that begins many answers
        (0.40, 0.10, 0.38, False),  # the base says it nearly as often
        (0.12, 0.06, 0.0, False),  # twice as often as it is right, and still rare
    ],
)
def test_a_collapse_is_one_answer_far_more_often_than_it_is_right_and_than_the_base_says_it(
    share: float, right: float, base: float, collapsed: bool
) -> None:
    said = MostSaid("true", share, right, base)
    assert said.is_collapse is collapsed
    assert (Rivals(answers={"edited": said}).collapse is said) is collapsed


def test_a_base_alone_has_not_collapsed() -> None:
    assert not MostSaid("true", 1.0, 0.1).is_collapse
    assert Rivals(answers={"base": MostSaid("true", 1.0, 0.1)}).collapse is None


def test_requests_are_compared_by_their_tokens() -> None:
    assert rival(0, 1, tokens_per_request=81.0, edited_tokens_per_request=9.0).times_the_tokens == 9
    assert rival(0, 1).times_the_tokens is None


def test_what_a_result_file_holds_is_read_back() -> None:
    rivals = Rivals(
        measured={
            "constant": rival(-0.1, 0.1, answer=2, metric=("f1", 0.5)),
            "shots_5": rival(0.1, 0.2, tokens_per_request=81.0, edited_tokens_per_request=9.0),
        },
        skipped={"shots_1": "there is no train split."},
        answers={"base": MostSaid(" the", 0.5, 0.0), "edited": MostSaid(3, 0.4, 0.2, 0.1)},
    )
    content = json.loads(json.dumps(rivals.to_json()))
    assert set(content) == {"constant", "shots_1", "shots_5", "answers"}
    assert content["shots_1"] == {"skipped": "there is no train split."}
    assert content["answers"]["base"] == {"answer": " the", "share": 0.5, "right_share": 0.0}
    assert {"accuracy", "loss", "count", "tokens_per_request"} <= set(content["shots_5"])
    assert (content["constant"]["answer"], content["constant"]["f1"]) == (2, 0.5)
    assert "answer" not in content["shots_5"]
    assert Rivals.from_json(content) == rivals
    assert not Rivals.from_json({})
