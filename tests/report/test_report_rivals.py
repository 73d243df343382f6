"""What a person reads of rivals: a line each, and one plain verdict where one does as well."""

import pytest

from strop.report import rival_lines
from strop.statistics import Comparison, MostSaid, Rival, Rivals


def rival(accuracy: float, gain: float, width: float, **fields: object) -> Rival:
    compared = Comparison(gain, (gain - width, gain + width), 0.5, 3, 4)
    return Rival(accuracy, 2.0, 500, compared, **fields)  # type: ignore[arg-type]


def test_each_rival_has_a_line_and_one_that_was_not_measured_its_reason() -> None:
    lines = rival_lines(
        Rivals(
            {
                "constant": rival(0.062, 0.3, 0.01, answer=" China"),
                "shots_1": rival(0.165, 0.2, 0.01, tokens_per_request=22.14, edited_tokens_per_request=9.3),
            },
            {"shots_5": "row 3 does not fit."},
        )
    )
    assert lines == [
        "Rival, always answering ' China': 6.2 % right of 500.",
        "Rival, 1 example in the prompt: 16.5 % right of 500, at 22.1 tokens a prompt in the place of 9.3.",
        "Rival, 5 examples in the prompt: not measured: row 3 does not fit.",
    ]


def test_a_rival_of_a_task_with_categories_shows_its_average_over_them() -> None:
    found = rival(0.27, 0.1, 0.01, macro=0.123, tokens_per_request=81.0)
    assert rival_lines(Rivals({"shots_5": found})) == [
        "Rival, 5 examples in the prompt: 27.0 % right of 500, 12.3 % as an average over categories, at 81.0 tokens a prompt."
    ]
    assert Rivals.from_json(Rivals({"shots_5": found}).to_json()).measured["shots_5"].macro == 0.123


@pytest.mark.parametrize(
    ("name", "found", "verdict"),
    [
        (
            "shots_5",
            rival(0.27, -0.117, 0.05, tokens_per_request=81, edited_tokens_per_request=9),
            "Five examples in the prompt do better (27.0 % against 15.3 %), at 9 times the tokens of a prompt.",
        ),
        (
            "shots_1",
            rival(0.165, -0.01, 0.05, tokens_per_request=15, edited_tokens_per_request=10),
            "One example in the prompt does as well (16.5 % against 15.5 %), at 1.5 times the tokens of a prompt.",
        ),
        (
            "shots_5",
            rival(0.27, 0.02, 0.05, tokens_per_request=81, edited_tokens_per_request=9),
            "Five examples in the prompt do perhaps as well (27.0 % against 29.0 %), at 9 times the tokens of a prompt.",
        ),
        (
            "constant",
            rival(0.25, 0.0, 0.01, answer=2),
            "Always answering choice 2 does as well (25.0 % against 25.0 %).",
        ),
        (
            "constant",
            rival(0.5, -0.1, 0.01, answer="yes", metric=("f1", 0.8)),
            "Always answering 'yes' does better (0.8000 against 0.7000 of f1).",
        ),
    ],
)
def test_a_rival_that_does_as_well_gets_a_verdict(name: str, found: Rival, verdict: str) -> None:
    assert rival_lines(Rivals({name: found}))[1:] == [verdict]


def test_a_rival_that_does_worse_gets_none() -> None:
    assert len(rival_lines(Rivals({"shots_5": rival(0.1, 0.2, 0.1)}))) == 1


def test_a_collapse_to_the_majority_class_is_said_in_both_places() -> None:
    said = MostSaid(" yes", 0.97, 0.62, 0.373)
    lines = rival_lines(
        Rivals(
            {"constant": rival(0.62, -0.013, 0.03, answer=" yes")},
            {},
            {"base": MostSaid(" no", 0.6, 0.38), "edited": said},
        )
    )
    assert lines[1:] == [
        "Most frequent answer: ' no' before (60.0 % of the examples, the right answer of 38.0 %), "
        "' yes' after (97.0 % of the examples, the right answer of 62.0 %).",
        "Always answering ' yes' does as well (62.0 % against 60.7 %): the edit learned the majority class.",
        "The edited model has collapsed to one answer: it gives ' yes' on 97.0 % of the examples, and it is the right answer "
        "of 62.0 %; the base gives it on 37.3 %.",
    ]


def test_nothing_is_said_of_rivals_that_were_not_measured() -> None:
    assert rival_lines(None) == rival_lines(Rivals()) == []
