"""What the documentation shows is run: README.md, docs/ and the docstrings in src/, each block as a test.

- `python` blocks run, those of one page in one namespace and one empty folder.
- `yaml` blocks must be a valid task file, or family file where they name blocks.
- `json` blocks must be JSON.
- Lines of `sh` blocks that begin with `strop` must parse; they are not executed.

A search or a sharpening without a plan would take minutes. On a page it is asked of one matrix, or layer, and few examples
instead. Whatever a page does, it does with few examples: what it prints is not compared.
"""

import dataclasses
import gc
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sybil import Example, Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from tests.fixtures.few import few_own_texts

FIXTURES = ("tests.fixtures.judging", "tests.fixtures.postgresql", "tests.fixtures.runs", "tests.fixtures.task_files")
LOADS_THE_REAL_MODEL = re.compile(r'strop\.load(_classifier)?\("smollm2-135m"')
MOST_EXAMPLES = {
    "train_limit": 24, "select_limit": 8, "test_limit": 12, "gradient_examples": 8, "effect_examples": 8,
}  # fmt: skip
MOST_SECONDS = 15.0
"""Of a budget of time."""


def check_yaml(example: Example) -> None:
    """Read a `yaml` block as Strop would."""
    from strop.anatomy import read_family
    from strop.tasks import read_task_file

    content = yaml.safe_load(example.parsed)
    path = Path("block.yaml")
    path.write_text(example.parsed, encoding="utf-8")
    if "blocks" in content:
        read_family(path)
    else:
        read_task_file(path)


def check_json(example: Example) -> None:
    """Parse a `json` block."""
    json.loads(example.parsed)


def check_commands(example: Example) -> None:
    """Parse each line of an `sh` block that calls strop, so that no option is shown that is not there."""
    from strop.cli import app

    root: Any = typer.main.get_command(app)
    for line in example.parsed.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["strop"] and words[1:] and not words[1].startswith("-"):
            name, arguments = words[1], words[2:]
            context = root.make_context("strop", [name, *arguments], resilient_parsing=True)
            root.get_command(context, name).make_context(name, arguments, parent=context)


pages = Sybil(
    name="pages",
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser("yaml", check_yaml),
        CodeBlockParser("json", check_json),
        CodeBlockParser("sh", check_commands),
        SkipParser(),
    ],
    patterns=["docs/*.md", "docs/*/*.md"],
    filenames=["README.md"],
    excludes=[".venv/**"],
    fixtures=["page_folder", "page_search", "page_examples"],
)
docstrings = Sybil(name="docstrings", parsers=[DocTestParser()], path="src", pattern="*.py")
pytest_collect_file = (pages + docstrings).pytest()


def pytest_configure(config: pytest.Config) -> None:
    """Load the shared fixtures, and all they import, wherever tests are run: not where they are only handed out."""
    if not config.getoption("numprocesses", None) or "PYTEST_XDIST_WORKER" in os.environ:
        for name in FIXTURES:
            config.pluginmanager.import_plugin(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the real model."""
    for item in items:
        if (
            isinstance(item, SybilItem)
            and item.path.suffix == ".md"
            and LOADS_THE_REAL_MODEL.search(item.example.document.text)
        ):
            item.add_marker("real")


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collection: a Trainer asks for one often, and each would walk all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty working folder for one page, gone afterwards: a baked checkpoint is large."""
    folder, before = tmp_path_factory.mktemp("page"), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def page_search() -> Iterator[None]:
    """Let a search, or a sharpening, that is given no plan be a small one."""
    import strop
    from strop.searching import SearchPlan, SharpenPlan, sharpen
    from strop.searching.laser import search

    small = SearchPlan(
        layers=(28,),
        matrix_types=(strop.MatrixType.UP,),
        rank_fractions=(0.01,),
        select_limit=MOST_EXAMPLES["select_limit"],
        test_limit=MOST_EXAMPLES["test_limit"],
        gradient_examples=MOST_EXAMPLES["gradient_examples"],
    )
    one_step = SharpenPlan(
        precondition="sign",
        steps=1,
        drift=None,
        layers=(28,),
        examples=MOST_EXAMPLES["gradient_examples"],
        select_limit=MOST_EXAMPLES["select_limit"],
        test_limit=MOST_EXAMPLES["test_limit"],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            strop,
            "sharpen",
            lambda model, tokenizer, task, plan=one_step, options=None: sharpen(model, tokenizer, task, plan, options),
        )
        patch.setattr(
            strop,
            "search",
            lambda model, tokenizer, task, plan=small, options=None: search(model, tokenizer, task, plan, options),
        )
        yield


@pytest.fixture(scope="module")
def page_examples(page_search: None) -> Iterator[None]:
    """Let a page search, prune, train and evaluate with few examples, beside no rivals, and measure drift on few texts."""
    import strop

    def with_few(make: Callable[..., Any]) -> Callable[..., Any]:
        def run(model: Any, tokenizer: Any, task: Any, *plan: Any, **rest: Any) -> Any:
            return make(model, tokenizer, task, *map(smaller, plan), **rest)

        return run

    def smaller(plan: Any) -> Any:
        """Of a plan, few examples; of options, little time."""
        if isinstance(plan, strop.RunOptions):
            seconds = plan.budget.seconds and min(plan.budget.seconds, MOST_SECONDS)
            return dataclasses.replace(plan, budget=dataclasses.replace(plan.budget, seconds=seconds))
        most = {name: count for name, count in MOST_EXAMPLES.items() if hasattr(plan, name)}
        return dataclasses.replace(
            plan, **{name: min(getattr(plan, name) or count, count) for name, count in most.items()}
        )

    evaluate = strop.evaluate
    with pytest.MonkeyPatch.context() as patch:
        few_own_texts(patch)
        patch.setattr("strop.proving.rivals.SHOT_COUNTS", ())
        for name in ("improve", "search", "prune", "train"):
            patch.setattr(strop, name, with_few(getattr(strop, name)))
        most = MOST_EXAMPLES["test_limit"]
        patch.setattr(
            strop,
            "evaluate",
            lambda *model_and_task, limit=None, **rest: evaluate(
                *model_and_task, limit=min(limit or most, most), **rest
            ),
        )
        yield
