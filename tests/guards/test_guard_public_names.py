"""The front door: its names are listed, there, documented, and light to import; and these guards can fail."""

import ast
import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop

HEAVY = ["torch", "transformers", "optuna", "datasets", "scipy", "matplotlib", "huggingface_hub", "pydantic", "rich"]
IMPORTED_AND_HEAVY = f"""
import importlib, sys
importlib.import_module(sys.argv[1])
print(" ".join(sorted(set({HEAVY!r}) & set(sys.modules))))
"""
STATE = """
import logging, os, random, signal, sys, warnings
def state():
    return {
        "warning filters": list(warnings.filters),
        "how warnings are shown": warnings.showwarning,
        "log handlers": list(logging.root.handlers),
        "log level": (logging.root.level, logging.root.manager.disable),
        "excepthook": sys.excepthook,
        "display hook": sys.displayhook,
        "environment": dict(os.environ),
        "working folder": os.getcwd(),
        "path": list(sys.path),
        "ctrl-c": signal.getsignal(signal.SIGINT),
        "random numbers": random.getstate(),
    }
before = state()
exec(sys.argv[1])
after = state()
print(" ".join(name.replace(" ", "_") for name in before if before[name] != after[name]))
"""
ROOMS = sorted(module.name for module in pkgutil.iter_modules(strop.__path__) if module.ispkg)


def test_the_public_names_are_those_of_the_stub_and_all_there() -> None:
    stub = Path(strop.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imported = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    listed = [alias.asname or alias.name for node in imported for alias in node.names]
    assert sorted(listed) == sorted(set(listed)) == sorted(strop.__all__)
    assert [node.module for node in imported] == sorted(str(node.module) for node in imported)
    assert set(strop.__all__) <= set(dir(strop))
    for name in strop.__all__:
        assert getattr(strop, name) is not None


def test_public_names_are_kept_in_one_place_only() -> None:
    text = Path(strop.__file__).read_text(encoding="utf-8")
    assert [name for name in strop.__all__ if f'"{name}"' in text] == []


def test_a_public_name_stays_what_it_is_after_every_room_was_imported() -> None:
    for room in ROOMS:
        importlib.import_module(f"strop.{room}")
    for name in strop.__all__:
        assert not isinstance(getattr(strop, name), types.ModuleType), name


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="No strop attribute serach"):
        strop.serach  # noqa: B018


def undocumented(module: Any) -> list[str]:
    """Return what a module lists in `__all__` without saying what it is for."""
    found = []
    for name in module.__all__:
        entry = getattr(module, name)
        if not (inspect.isclass(entry) or inspect.isfunction(entry)):
            continue
        if not (entry.__doc__ or "").strip():
            found.append(name)
        if inspect.isclass(entry):
            own = [member for key, member in vars(entry).items() if not key.startswith("_")]
            functions = [getattr(member, "__func__", getattr(member, "fget", member)) for member in own]
            found += [f"{name}.{f.__name__}" for f in functions if inspect.isfunction(f) and not f.__doc__]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_everything_a_room_lists_is_there_and_says_what_it_is_for(room: str) -> None:
    module = importlib.import_module(f"strop.{room}")
    assert module.__doc__
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    assert undocumented(module) == []


def test_the_guard_of_docstrings_can_fail() -> None:
    class Silent:
        def method(self) -> None: ...

    module = types.SimpleNamespace(__all__=["Silent", "named"], Silent=Silent, named=lambda: None)
    assert undocumented(module) == ["Silent", "Silent.method", "named"]


@pytest.mark.parametrize("module", ["strop", "strop.errors"])
def test_importing_strop_loads_nothing_heavy(fresh_python: Callable[..., Any], module: str) -> None:
    found = fresh_python(IMPORTED_AND_HEAVY, module)
    assert (found.returncode, found.stdout.strip()) == (0, ""), found.stderr


def test_the_command_line_shows_its_help_without_torch(fresh_python: Callable[..., Any]) -> None:
    found = fresh_python(IMPORTED_AND_HEAVY, "strop.cli")
    assert found.returncode == 0, found.stderr
    assert not {"torch", "transformers", "optuna", "datasets", "scipy"} & set(found.stdout.split())


def test_the_guard_of_light_imports_can_fail(fresh_python: Callable[..., Any]) -> None:
    found = fresh_python(IMPORTED_AND_HEAVY, "strop.linalg")
    assert found.returncode == 0, found.stderr
    assert "torch" in found.stdout.split()


def test_importing_strop_changes_nothing(fresh_python: Callable[..., Any]) -> None:
    found = fresh_python(STATE, "import strop; dir(strop); strop.__version__")
    assert (found.returncode, found.stdout.strip()) == (0, ""), found.stderr


def test_the_guard_of_changes_can_fail(fresh_python: Callable[..., Any]) -> None:
    changes = "warnings.simplefilter('ignore'); logging.basicConfig(level=10); random.random(); os.environ['A_'] = '1'"
    found = fresh_python(STATE, changes)
    expected = {"warning_filters", "log_handlers", "log_level", "environment", "random_numbers"}
    assert set(found.stdout.split()) == expected


def test_using_strop_sets_up_no_logging(fresh_python: Callable[..., Any]) -> None:
    uses = "import strop; strop.search, strop.load, strop.evaluate, strop.bake"
    found = fresh_python(STATE, uses)
    assert found.returncode == 0, found.stderr
    assert not {"log_handlers", "log_level", "excepthook", "working_folder", "ctrl-c"} & set(found.stdout.split())
