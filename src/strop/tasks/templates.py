"""Templates and conditions of a task file, compiled in the sandbox, or one sentence that says why not."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.parser import Parser

from strop.errors import EndlessError, TaskError, quoted, reason_in, shortened
from strop.tasks.sandbox import BoundedEnvironment, TooCostlyError, metered

LONGEST = 100_000
"""Characters of a template."""
MOST_PARTS = 8_000
"""Of a template: its names, signs and stretches of text."""


def template_of(text: str, environment: BoundedEnvironment, *, what: str) -> jinja2.Template:
    """Compile a template.

    Args:
        text: Jinja.
        environment: in which it is to be rendered.
        what: to call it in an error.

    Raises:
        TaskError: it is not Jinja, or too long.
    """
    return _compiled(environment, lambda: environment.parse(_bounded(environment, text, text, what)), what)


def rendered(template: jinja2.Template, columns: Mapping[str, Any], *, what: str) -> str:
    """Render a template, within the steps of one rendering; what goes wrong in it is raised as it is.

    Args:
        template: from `template_of`.
        columns: what it may name.
        what: to call it in an error.

    Raises:
        EndlessError: it takes more.
    """
    return str(_bounded_call(lambda: template.render(columns), what))


@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition on a row's columns, true or false of each."""

    names: frozenset[str]
    """The columns it looks at."""
    environment: BoundedEnvironment
    template: jinja2.Template

    @classmethod
    def read(cls, text: str, environment: BoundedEnvironment, *, what: str) -> "Condition":
        """Compile a condition.

        Args:
            text: a Jinja expression, without braces.
            environment: in which it is to be asked.
            what: to call it in an error.

        Raises:
            TaskError: it is not an expression.
        """
        if "{{" in text or "{%" in text:
            raise TaskError(f"{what} is written without braces, such as where: lang == 'en'.")
        names: set[str] = set()

        def parse() -> nodes.Template:
            parser = Parser(environment, _bounded(environment, text, f"{{{{ {text} }}}}", what), state="variable")
            value = parser.parse_expression()
            if not parser.stream.eos:
                raise jinja2.TemplateSyntaxError("it goes on behind its end", parser.stream.current.lineno)
            tree = nodes.Template([nodes.Assign(nodes.Name("verdict", "store"), value, lineno=1)], lineno=1)
            tree.set_environment(environment)
            names.update(jinja2.meta.find_undeclared_variables(tree))
            return tree

        template = _compiled(environment, parse, what)
        return cls(frozenset(names), environment, template)

    def holds(self, columns: Mapping[str, Any], *, what: str) -> bool:
        """Say whether the condition is true of a row; what goes wrong in it is raised as it is.

        Args:
            columns: of the row.
            what: to call it in an error.

        Raises:
            TaskError: it is neither true nor false, or takes more than the steps of one rendering.
        """

        def verdict() -> Any:
            found = getattr(self.template.make_module(dict(columns)), "verdict", None)
            if isinstance(found, jinja2.Undefined):
                str(found)  # raises what it is to be raised
            return found

        found = _bounded_call(verdict, what)
        tests: dict[str, Any] = self.environment.tests
        if not metered(lambda: tests["boolean"](found)):
            shown = quoted(found) if isinstance(found, str) else shortened(str(found))
            raise TaskError(
                f"{what} gives {shown}, which is neither true nor false; compare it, as in where: lang == 'en'."
            )
        return bool(found)


def _bounded_call(call: Callable[[], Any], what: str) -> Any:
    try:
        return metered(call)
    except (TooCostlyError, RecursionError, MemoryError):
        raise EndlessError(
            f"{what} computes more than a prompt needs; shorten its loops and what it repeats."
        ) from None


def _bounded(environment: BoundedEnvironment, text: str, whole: str, what: str) -> str:
    """Return a text if it is short enough to be compiled, in characters and in parts of the whole template around it."""
    if len(text) > LONGEST:
        raise TaskError(f"{what} has {len(text):,} characters, more than {LONGEST:,}; put what is long into the rows.")
    if sum(1 for _ in itertools.islice(environment.lex(whole), MOST_PARTS + 1)) > MOST_PARTS:
        raise TaskError(f"{what} has more than {MOST_PARTS:,} parts; put what is long into the rows.")
    return text


def _compiled(environment: BoundedEnvironment, parse: Callable[[], nodes.Template], what: str) -> jinja2.Template:
    try:
        return metered(lambda: environment.compiled(parse()))
    except jinja2.TemplateSyntaxError as error:
        raise TaskError(
            f"{what} is not Jinja: {shortened((error.message or 'it does not parse').rstrip('.'), most=120)}."
        ) from None
    except (RecursionError, MemoryError, SyntaxError):  # the parser's, and Python's beneath it
        raise TaskError(f"{what} is nested too deeply; write it flatter.") from None
    except (ValueError, OverflowError) as error:
        raise TaskError(f"{what} cannot be read: {shortened(reason_in(error), most=120)}.") from None
