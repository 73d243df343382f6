"""The walls between rooms hold, nothing is unpickled; and these guards can fail."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "pd.read_pickle", "numpy.load", "np.load", "yaml.load", "eval", "exec"}
UNSAFE_ARGUMENTS = {"trust_remote_code", "allow_pickle"}


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run import-linter on the package below a folder."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the package that may be spoilt."""
    ignored = shutil.ignore_patterns("__pycache__", "builtin")
    shutil.copytree(repository / "src" / "strop", tmp_path / "src" / "strop", ignore=ignored)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def test_rooms_import_only_rooms_above_them(repository: Path) -> None:
    found = lint_imports(repository)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


def test_every_room_stands_in_the_contract(repository: Path) -> None:
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {part.strip() for layer in layers for part in layer.split("|")}
    held = {
        f"strop.{entry.stem}"
        for entry in (repository / "src" / "strop").iterdir()
        if (entry.suffix == ".py" and not entry.stem.startswith("__")) or (entry / "__init__.py").is_file()
    }
    assert named == held


def test_the_guard_of_walls_can_fail(copy: Path) -> None:
    for path, line in (("linalg/rank.py", "import strop.cli"), ("report/figures.py", "import torch")):
        with (copy / "src" / "strop" / path).open("a") as module:
            module.write(f"\n{line}\n")
    found = lint_imports(copy)
    assert found.returncode == 1
    assert "strop.linalg.rank -> strop.cli" in found.stdout
    assert "2 broken" in found.stdout


def unsafe_uses(source: str) -> list[str]:
    """Return what a module imports or calls that could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE_CALLS:
            found.append(ast.unparse(node.func))
        elif isinstance(node, ast.keyword) and node.arg in UNSAFE_ARGUMENTS:
            found.append(node.arg)
    return found


def test_nothing_a_file_says_is_unpickled_or_executed(repository: Path) -> None:
    modules = sorted((repository / "src").rglob("*.py"))
    assert len(modules) > 40
    assert {str(path): uses for path in modules if (uses := unsafe_uses(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import yaml\nyaml.load(text)",
        "eval(text)",
        "exec(text)",
        "read(path, allow_pickle=True)",
        "load(name, trust_remote_code=True)",
    ],
)
def test_the_guard_against_unpickling_can_fail(source: str) -> None:
    assert unsafe_uses(source)
