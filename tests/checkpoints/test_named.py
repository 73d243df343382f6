"""A model's name or folder stands for the model and its tokenizer wherever a function takes both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop import RunOptions, SearchPlan
from strop.checkpoints import best_device, takes_names
from strop.errors import CheckpointError
from strop.recipe import Recipe
from strop.tasks import Task, load_task

SMALL = SearchPlan(
    layers=(1,), rank_fractions=(0.5,), top_matrices=1, gradient_examples=4, select_limit=6, test_limit=6
)


@pytest.fixture
def task(facts: Path) -> Task:
    return load_task(facts)


def test_a_folder_is_evaluated_as_its_model_is(tiny_folder: Path, task: Task) -> None:
    model, tokenizer = strop.load(tiny_folder)
    expected = strop.evaluate(model, tokenizer, task)
    for found in (
        strop.evaluate(tiny_folder, task),
        strop.evaluate(str(tiny_folder), task=task),
        strop.evaluate(tiny_folder, tokenizer, task),
        strop.evaluate(model=str(tiny_folder), tokenizer=tokenizer, task=task),
        strop.evaluate(model=model, tokenizer=tokenizer, task=task),
    ):
        assert found.loss == pytest.approx(expected.loss)


def test_a_task_file_beside_a_folder_is_read(tiny_folder: Path, facts: Path) -> None:
    assert strop.evaluate(tiny_folder, facts, split="select").count == 24
    assert strop.evaluate(tiny_folder, task=str(facts), split="select").count == 24


@pytest.mark.parametrize(
    "method", [strop.search, strop.prune, strop.sharpen, strop.train], ids=lambda own: own.__name__
)
def test_every_method_takes_a_folder(
    method: Callable[..., Any], tiny_folder: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing each does with a model is to bind it to its task."""
    seen = []

    def bind(model: Any, tokenizer: Any, *more: Any) -> None:
        seen.append((type(model).__name__, tokenizer("x")["input_ids"] != [], more[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr("strop.proving.Assignment.of", bind)
    with pytest.raises(KeyboardInterrupt):
        method(tiny_folder, task)
    assert seen == [("LlamaForCausalLM", True, task)]


def test_a_whole_search_and_a_bake_need_no_more_than_names(tiny_folder: Path, task: Task, tmp_path: Path) -> None:
    found = strop.search(str(tiny_folder), task, SMALL, RunOptions(rivals=False))
    assert found.result.base_model.id == tiny_folder.name
    baked = strop.bake(tiny_folder, found.recipe, tmp_path / "baked")
    assert (baked / "tokenizer.json").is_file()
    assert strop.evaluate(baked, task).count == 24


def test_a_task_with_labels_asks_for_a_classifier(tiny_folder: Path, cities: Callable[..., Path]) -> None:
    found = strop.evaluate(tiny_folder, cities())
    assert found.labels is not None
    assert found.labels.names == ("france", "brazil")
    model, tokenizer = strop.load_classifier(tiny_folder, labels=("france", "brazil"))
    assert strop.evaluate(model, tokenizer, load_task(cities())).loss == pytest.approx(found.loss)


def test_a_classifier_is_drawn_by_the_seed_of_the_plan(tiny_folder: Path, cities: Callable[..., Path]) -> None:
    import torch

    heads = []

    @takes_names
    def head_of(model: Any, tokenizer: Any, task: Task, plan: Any = None) -> None:
        heads.append(model.score.weight.detach().clone())

    for plan in (None, SearchPlan(seed=0), SearchPlan(seed=1)):
        head_of(tiny_folder, cities(), plan)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_folder_that_is_not_there_is_named(task: Task, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone' is not there; give a folder"):
        strop.evaluate(tmp_path / "gone", task)
    with pytest.raises(CheckpointError, match="'~nobody-of-that-name/x' is not there"):
        strop.load("~nobody-of-that-name/x")


def test_a_name_is_run_where_the_command_line_would_run_it() -> None:
    from strop.cli.console import device_for_command

    assert best_device() == device_for_command(None)


def test_a_home_folder_is_found(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    model, _ = strop.load(Path("~") / tiny_folder.name)
    assert Recipe.of(model, []).base.name == tiny_folder.name
