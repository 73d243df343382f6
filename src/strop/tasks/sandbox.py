"""A Jinja sandbox in which every template ends: what it computes is bounded in steps and in size."""

import contextvars
import functools
import math
import re
import string
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jinja2
import jinja2.sandbox
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MOST_STEPS = 50_000
"""Of one rendering: an operation, an element that is looked at, or a hundred characters that are."""
CHARACTERS_A_STEP = 100
MOST_BITS = 16_384
"""Of an integer that a template makes."""
GROWING = frozenset(
    "batch center expandtabs indent join ljust rjust round slice to_bytes tojson translate wordwrap "
    "xmlattr zfill".split()
)
"""Filters and methods whose result may be as large as the product of what they are given."""
FORMATTING = frozenset({"format", "format_map"})
SQUARING = frozenset("pprint striptags urlize wordwrap".split())
"""Filters that take time by the square of what they are given."""
LEFT_OUT = ("random",)
"""Filters that say something else at every reading."""
_WEIGHED, _JOINED, _COUNTED = "a weighed value", "joined texts", "a counted round"

_VIEWS: tuple[type[Iterable[Any]], ...] = (type({}.keys()), type({}.values()), type({}.items()))
_SEQUENCES: tuple[type[Iterable[Any]], ...] = (list, tuple, set, frozenset, range, *_VIEWS)
_PERCENT = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?.", flags=re.DOTALL)
_Result = TypeVar("_Result")

_left: contextvars.ContextVar[list[int]] = contextvars.ContextVar("steps left")


class TooCostlyError(Exception):
    """A template computes more than a prompt needs."""


def metered(call: Callable[[], _Result]) -> _Result:
    """Return what a call returns, within the steps of one rendering.

    Raises:
        TooCostlyError: it takes more.
    """
    token = _left.set([MOST_STEPS])
    try:
        return call()
    finally:
        _left.reset(token)


def _spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooCostlyError


def _weigh(*values: Any) -> int:
    """Return how many steps it takes to look at values, all that they hold included, and spend them."""
    steps, waiting = 0, list(values)
    most = _left.get()[0]
    while waiting:
        value = waiting.pop()
        steps += 1
        if isinstance(value, (str, bytes)):
            steps += len(value) // CHARACTERS_A_STEP
        elif isinstance(value, int):
            steps += value.bit_length() // 1_000
        elif isinstance(value, range):
            steps += len(value)
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, _SEQUENCES):
            waiting += value
        elif isinstance(value, Namespace):
            waiting.append(object.__getattribute__(value, "_Namespace__attrs"))
        if steps > most:
            raise TooCostlyError
    _spend(steps)
    return steps


def _size(value: Any) -> int:
    """Return by how much a value may make a result larger: a number by itself, all else by its characters and elements."""
    if isinstance(value, (int, float)):
        return int(min(abs(value), 10**18)) if value == value else 0
    return len(value) if isinstance(value, (str, bytes)) else _weigh(value) * CHARACTERS_A_STEP


def _check_growth(name: str, subject: Any, given: Iterable[Any]) -> None:
    """Spend, before it is done, what the result of a filter or method may take."""
    given = list(given)
    weight = _weigh(subject)
    written = name in FORMATTING  # as it is: widths are in the text
    sizes = [_weigh(value) * CHARACTERS_A_STEP if written else _size(value) for value in given]
    if name in SQUARING:
        _spend(weight * weight // (2 if isinstance(subject, str) else 1_000))
    elif name == "sum" and any(isinstance(value, _SEQUENCES) for value in given):
        _spend(weight * weight // 1_000)
    elif name == "replace" and isinstance(subject, str) and len(sizes) > 1:
        _spend((len(subject) // max(sizes[0], 1) + 1) * sizes[1] // CHARACTERS_A_STEP)
    elif written or name in GROWING:
        own = 0 if isinstance(subject, (int, float)) else _size(subject)
        _spend(math.prod(1 + size for size in (own, *sizes)) // CHARACTERS_A_STEP)


def _check_widths(text: str) -> None:
    """Refuse a format string that asks for more columns than a prompt has, or takes their number from a value."""
    found = [width for widths in _PERCENT.findall(text) for width in widths]
    try:
        specifications = [part[2] or "" for part in string.Formatter().parse(text)]
    except ValueError:  # not of this style, or no format at all, which whoever formats will say
        specifications = []
    found += [width for specification in specifications for width in re.findall(r"\d+|\{", specification)]
    if any(width in ("*", "{") or len(width) > 4 for width in found if width):
        raise TooCostlyError


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    own = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def bounded(*arguments: Any, **named: Any) -> Any:
        subject, others = arguments[own], (*arguments[own + 1 :], *named.values())
        if name == "format":
            _check_widths(str(subject))
        _check_growth(name, subject, others)
        result = function(*arguments, **named)
        _weigh(result)
        return result

    return bounded


# They take a context, which they do not need, lest Jinja call them while it compiles, where a value is constant.


@jinja2.pass_context
def _weighed(context: Context, value: Any) -> Any:
    _weigh(value)
    return value


@jinja2.pass_context
def _joined(context: Context, values: list[Any]) -> str:
    _weigh(values)
    return "".join(map(str, values))


@jinja2.pass_context
def _counted(context: Context, characters: int) -> str:
    _spend(1 + characters // CHARACTERS_A_STEP)
    return ""


class _Metering(NodeTransformer):
    """Puts a count into every round of a loop and every macro, and weighs what no filter or call is asked for."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.generic_visit(node, *args, **kwargs)
        match node:
            case nodes.Output():
                node.nodes = [each if isinstance(each, nodes.TemplateData) else _weighing(each) for each in node.nodes]
            case nodes.Concat():
                return _filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED)
            case nodes.Compare():
                node.expr = _weighing(node.expr)
                for operand in node.ops:
                    operand.expr = _weighing(operand.expr)
            case nodes.Getitem(arg=nodes.Slice()) | nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load"):
                return _weighing(node)
            case nodes.For(iter=iterable):
                node.iter = _weighing(iterable)
                _count_in(node)
            case nodes.Macro() | nodes.CallBlock():
                _count_in(node)
        return node


def _weighing(node: Any) -> nodes.Filter:
    return _filter(node, _WEIGHED)


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _count_in(node: nodes.For | nodes.Macro | nodes.CallBlock) -> None:
    characters = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
    counted = _filter(nodes.Const(characters, lineno=node.lineno), _COUNTED)
    node.body.insert(0, nodes.ExprStmt(counted, lineno=node.lineno))


class BoundedEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja that reaches nothing but the row, and ends within `MOST_STEPS`; render under `metered`.

    Bounded are rounds of loops, calls, what filters and operators make, what is compared and what is written.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
            optimized=False,
        )
        del self.globals["lipsum"]
        filters: dict[str, Any] = {name: own for name, own in self.filters.items() if name not in LEFT_OUT}
        tests: dict[str, Any] = self.tests
        self.tests = {name: _bounded_filter(name, function) for name, function in tests.items()}
        self.filters = {name: _bounded_filter(name, function) for name, function in filters.items()}
        self.filters |= {_WEIGHED: _weighed, _JOINED: _joined, _COUNTED: _counted}

    def compiled(self, tree: nodes.Template) -> jinja2.Template:
        """Return a parsed template as one that can be rendered, metered throughout."""
        metering: nodes.Template = _Metering().visit(tree)
        metering.set_environment(self)
        return self.from_string(metering)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Say whether a template may have an attribute: text is not turned into bytes."""
        return attr not in ("encode", "decode") and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator, once it is seen to be small enough."""
        _weigh(left, right)
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "%" and isinstance(left, str):
            _check_widths(left)
            _check_growth("format", left, [right])
        elif operator == "**" and whole:
            if right > 0 and abs(left) > 1 and left.bit_length() * right > MOST_BITS:
                raise TooCostlyError
        elif operator == "*" and whole:
            if left.bit_length() + right.bit_length() > MOST_BITS:
                raise TooCostlyError
        elif operator == "*":
            count, repeated = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(count, int) and not isinstance(repeated, float):
                _spend(max(count, 0) * _size(repeated) // CHARACTERS_A_STEP)
        result = super().call_binop(context, operator, left, right)
        _weigh(result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as in Jinja
        """Return what a call returns, once it is seen to be small enough."""
        name = getattr(__obj, "__name__", "")
        subject = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if name in FORMATTING and isinstance(subject, str):
            _check_widths(subject)
        _check_growth(name, subject, (*args, *kwargs.values()))
        result = super().call(__context, __obj, *args, **kwargs)
        _weigh(result)
        return result
