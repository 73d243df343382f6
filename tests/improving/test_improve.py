"""A race of methods: the better half goes on, all are judged on as many examples, and the budget is all of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fixtures.runs import Notes

from strop.improving import ImprovePlan, improve
from strop.proving import Budget, RunOptions


def test_x(answering: Callable[..., Any], small_tokenizer: Any, task: Any, tmp_path: Path) -> None:
    notes = Notes()
    found = improve(
        answering(),
        small_tokenizer,
        task,
        ImprovePlan(preset="good"),
        RunOptions(out=tmp_path / "run", progress=notes, budget=Budget(seconds=90)),
    )
    print("\n".join(notes.lines))
    print(found)
    for row in found.leaderboard.table().rows:
        print(row)
    print(found.leaderboard.decision)
    print(sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")))
    assert 0
