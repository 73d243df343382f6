"""The house keeps its shape: no import circle, no room that grows into a hall; and these guards can fail."""

import ast
import graphlib
from collections.abc import Iterable
from pathlib import Path

import pytest

FILE_LINES, FUNCTION_LINES = 400, 60


def imports_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return for each module those of the same set it imports, also inside a function; packages stand for themselves."""
    found: dict[str, set[str]] = {name: set() for name in sources}
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {entry if entry in sources else node.module for entry in inside} & sources.keys()
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & sources.keys()
    return {name: others - {name} for name, others in found.items()}


def circle_in(imports: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle; none where there is no circle."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def sources_of(repository: Path) -> dict[str, str]:
    package = repository / "src" / "strop"
    return {
        ".".join(("strop", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"): path.read_text(
            encoding="utf-8"
        )
        for path in sorted(package.rglob("*.py"))
    }


def test_no_module_imports_itself_in_a_circle(repository: Path) -> None:
    assert circle_in(imports_of(sources_of(repository))) == []


@pytest.mark.parametrize("inner", ["import {}", "def late():\n    import {}"])
def test_the_guard_of_circles_can_fail(inner: str) -> None:
    sources = {"a": inner.format("b"), "b": "from c import x", "c": inner.format("a")}
    assert set(circle_in(imports_of(sources))) == {"a", "b", "c"}


def long_functions(source: str) -> list[str]:
    """Return the functions of more lines than a person reads at once; docstrings and lists of options do not count."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.end_lineno if documented else first.lineno - 1
            if (node.end_lineno or 0) - (start or 0) > FUNCTION_LINES:
                found.append(node.name)
    return found


def too_long(sources: Iterable[tuple[str, str]]) -> list[str]:
    wrong = []
    for name, source in sources:
        lines = source.count("\n")
        wrong += [f"{name}: {lines} lines"] if lines > FILE_LINES else []
        wrong += [f"{name}: {function} is long" for function in long_functions(source)]
    return wrong


def test_no_file_and_no_function_is_too_long_to_read(repository: Path) -> None:
    assert too_long(sources_of(repository).items()) == []


def test_the_guard_of_lengths_can_fail() -> None:
    body = "\n".join("    x = 1" for _ in range(FUNCTION_LINES + 1))
    assert long_functions(f"def f():\n{body}\n") == ["f"]
    assert long_functions(f'def f():\n    """{body}"""\n    return 1\n') == []
    assert too_long([("m", "\n" * (FILE_LINES + 1))]) == [f"m: {FILE_LINES + 1} lines"]
