"""A chat template that prints the day: a run is asked on one day from its beginning to its end, a resume included."""

import copy
import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import Interrupting

from strop.anatomy import MatrixType
from strop.proving import RunOptions
from strop.scoring import dated, now
from strop.scoring.chat_template import prompt_of
from strop.searching import SearchPlan, search
from strop.tasks import Task
from strop.tasks.chat import Chat

PLAN = SearchPlan(strategy="exhaustive", matrix_types=(MatrixType.UP, MatrixType.DOWN), rank_fractions=(0.1, 0.5))
TEMPLATE = "Now: {{ strftime_now('%d %b %Y %H:%M:%S') }}\n{% for m in messages %}{{ m.content }}{% endfor %}"
BEGUN, LATER = datetime.datetime(2025, 3, 1, 23, 59, 58), datetime.datetime(2025, 3, 2, 8, 15)


@pytest.fixture
def dating(small_tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def chats(task: Task) -> Task:
    """The small facts, asked in a chat."""
    splits = {
        name: tuple(dataclasses.replace(example, chat=Chat()) for example in examples)
        for name, examples in task.splits.items()
    }
    return dataclasses.replace(task, splits=splits)


def figures(found: Any) -> Any:
    return (found.result.base, found.result.edited, [(trial.key.text, trial.loss) for trial in found.trials])


def test_a_resumed_run_asks_on_the_day_it_began(
    answering: Callable[..., Any], dating: Any, chats: Task, tmp_path: Path
) -> None:
    model, out = answering(), tmp_path / "run"
    with dated(BEGUN):
        straight = search(model, dating, chats, PLAN, RunOptions(rivals=False))
        with pytest.raises(KeyboardInterrupt):
            search(model, dating, chats, PLAN, RunOptions(out=out, rivals=False, progress=Interrupting(5)))
    assert json.loads((out / "config.json").read_text())["now"] == "2025-03-01T23:59:58"
    with dated(LATER):
        assert "02 Mar 2025" in prompt_of(chats.examples("test")[0], dating)
        resumed = search(model, dating, chats, PLAN, RunOptions(out=out, rivals=False, resume=True))
        other = search(model, dating, chats, PLAN, RunOptions(rivals=False))
        assert "02 Mar 2025" in prompt_of(chats.examples("test")[0], dating)
    assert figures(resumed) == figures(straight)
    assert figures(other) != figures(straight)  # the day is read by the model


def test_a_run_whose_prompts_name_no_day_keeps_none(
    answering: Callable[..., Any], dating: Any, task: Task, tmp_path: Path
) -> None:
    search(answering(), dating, task, PLAN, RunOptions(out=tmp_path / "run", rivals=False))
    assert "now" not in json.loads((tmp_path / "run" / "config.json").read_text())


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"now": 5}', '{"now": "tomorrow"}'])
def test_a_config_that_names_no_moment_changes_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with dated(BEGUN), RunOptions(out=tmp_path, resume=True).in_force():
        assert now() == BEGUN
