"""What the documentation shows is run: README.md, docs/ and the docstrings in src/, each block as a test.

- `python` blocks run, those of one page in one namespace and one empty folder.
- `yaml` blocks must be a valid task file, or family file where they name blocks.
- `json` blocks must be JSON.
- Lines of `sh` blocks that begin with `strop` must parse; they are not executed.

A search without a plan would take minutes. On a page it is asked of one matrix and few examples instead.
"""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sybil import Example, Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

pytest_plugins = ["tests.fixtures.runs", "tests.fixtures.task_files"]

LOADS_THE_REAL_MODEL = 'strop.load("smollm2-135m")'


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
    fixtures=["page_folder", "page_search"],
)
docstrings = Sybil(name="docstrings", parsers=[DocTestParser()], path="src", pattern="*.py")
pytest_collect_file = (pages + docstrings).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the real model."""
    for item in items:
        if (
            isinstance(item, SybilItem)
            and item.path.suffix == ".md"
            and LOADS_THE_REAL_MODEL in item.example.document.text
        ):
            item.add_marker("real")


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
    """Let a search that is given no plan be a small one."""
    import strop
    from strop.searching import SearchPlan
    from strop.searching.laser import search

    small = SearchPlan(
        layers=(28,),
        matrix_types=(strop.MatrixType.UP,),
        rank_fractions=(0.01,),
        select_limit=30,
        test_limit=60,
        gradient_examples=10,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            strop,
            "search",
            lambda model, tokenizer, task, plan=small, options=None: search(model, tokenizer, task, plan, options),
        )
        yield
