"""Patterns: what they find, as Python's own do, and that a search ends."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import TaskError
from strop.tasks import GenerateSettings, TaskFile, load_task
from strop.tasks.extraction import extract

TEXTS = ["the correct answer is answer2, I think", "All of them", "so 3 + 4 = 7.", "A\nthe correct answer is B\nC", ""]
PATTERNS = [
    r"the correct answer is (\w+)", r"(?s)the correct answer is (.*)", "([A-E])", r"\b([A-E])\b", r"-?\d+\.?\d*",
    r"(?i)ANSWER", r"^(.*)$", r"(?m)^(B)?", r"(?P<n>\w)(?P=n)", r"(x)?l",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_finds_what_pythons_own_finds(pattern: str) -> None:
    for text in TEXTS:
        found = re.search(pattern, text)
        own = None if found is None else found.group(1 if found.re.groups else 0)
        assert extract(text, GenerateSettings(extract=pattern)) == (None if own is None else own.strip())


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$"])
def test_a_search_without_end_is_given_up(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strop.tasks.patterns.PATIENCE_SECONDS", 0.1)
    began = time.process_time()
    with pytest.raises(TaskError) as raised:
        extract("a" * 3_000 + "!", GenerateSettings(extract=pattern))
    assert str(raised.value) == (
        f"The pattern '{pattern}' in generate.extract takes over 0.1 seconds on a text of 3,001 characters; write it "
        "without a repeat within a repeat, such as (a+)+."
    )
    assert time.process_time() - began < 2


def test_a_pattern_without_end_is_met_where_a_task_is_loaded(
    write_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.tasks.patterns.PATIENCE_SECONDS", 0.1)
    rows = [{"prompt": f"p{i}", "answer": "a" * 400 + "!"} for i in range(5)]
    with pytest.raises(TaskError, match=r"in generate.extract takes over 0\.1 seconds on a text of 401 characters"):
        load_task(write_task(rows, score="generate", generate={"extract": "(a|aa)+$"}))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("is (.*", "'is (.*' is not a regular expression: missing ), unterminated subpattern at position 3"),
        ("x" * 501, "a pattern has up to 500 characters, and this one 501"),
        ("(?:(?:a{200}){200}){200}", "its repeats such as {200} come to more than 10,000 together"),
        ("a{99999999999}", "its repeats such as {99999999999} come to more than 10,000 together"),
        ("(" * 200 + "a" + ")" * 299, "is not a regular expression: unbalanced parenthesis at position 401"),
        (r"\p{L}", "is not a regular expression: bad escape"),
    ],
)
def test_a_pattern_that_is_none_or_too_much_is_refused(pattern: str, said: str) -> None:
    settings: dict[str, Any] = {"name": "t", "data": "d.jsonl", "score": "generate", "generate": {"extract": pattern}}
    began = time.process_time()
    with pytest.raises(ValueError, match=re.escape(said)):
        TaskFile.model_validate(settings)
    assert time.process_time() - began < 2
