"""Let one call run a part of a model, while other threads and tasks go on calling all of it.

What is skipped, fed and captured is kept in a context variable, and so belongs to whoever calls. A block carries one
dispatcher for as long as any such call is going on, and the dispatcher acts only within a call of its own.
"""

import contextlib
import contextvars
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from strop.anatomy.families import Family
from strop.errors import AnatomyError


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Which part of a model a call runs, what it is fed and what it is to bring back.

    Blocks below `start` and from `stop` on pass their input through. A raw state goes where block `start` − 1 would make it,
    so that the hooks on that block still see it.

    Raises:
        ValueError: it starts above the first block, and has no state to start from.
    """

    start: int
    stop: int
    state: Tensor | None = None
    """What enters block `start`: (batch, tokens, hidden)."""
    raw: bool = False
    captured: list[Tensor] | None = None
    """Takes what enters block `stop`."""
    made: list[Tensor] | None = None
    """Takes what block `stop` − 1 makes, before any other hook on it."""
    scored: tuple[Tensor, Tensor] | None = None
    """The rows and columns of the hidden states that the LM head is given."""
    fed: list[Tensor] = dataclasses.field(default_factory=list)
    """Takes the state where it has been fed: layers that share a block are fed once."""

    def __post_init__(self) -> None:
        if self.start > 0 and self.state is None:
            raise ValueError(f"Starting at block {self.start} needs the hidden state that enters it.")


_PARTS: contextvars.ContextVar[Mapping[nn.Module, Part] | None] = contextvars.ContextVar("strop_parts", default=None)
"""What this thread or task runs, by the module that lists the model's blocks."""
_DISPATCHERS: "dict[nn.Module, _Dispatcher]" = {}
_LOCK = threading.Lock()


@contextlib.contextmanager
def running(blocks: nn.ModuleList, family: Family, part: Part, *, head: nn.Module | None = None) -> Iterator[None]:
    """Let the calls of a model that are made within the block, in this thread or task, run a part of it.

    Args:
        blocks: the model's.
        family: how the model's parts are spelled.
        part: what is run.
        head: the LM head, where only some positions are scored.
    """
    ends = {min(part.start, len(blocks) - 1), max(part.stop - 1, 0)}
    with contextlib.ExitStack() as undo:
        for index in sorted({*range(part.start), *range(part.stop, len(blocks)), *ends}):
            undo.enter_context(_dispatched(blocks[index], functools.partial(_OfBlock, blocks, family, index)))
        if head is not None:
            undo.enter_context(_dispatched(head, functools.partial(_OfHead, blocks, head)))
        undo.callback(_PARTS.reset, _PARTS.set({**(_PARTS.get() or {}), blocks: part}))
        yield


class _Dispatcher(Protocol):
    users: int
    """How many calls need it."""

    def remove(self) -> None:
        """Leave the module as it was."""
        ...


@contextlib.contextmanager
def _dispatched(module: nn.Module, make: Callable[[], _Dispatcher]) -> Iterator[None]:
    """Keep a module's dispatcher on it, together with other calls that need it."""
    with _LOCK:
        dispatcher = _DISPATCHERS.get(module)
        if dispatcher is None:
            dispatcher = _DISPATCHERS[module] = make()
        dispatcher.users += 1
    try:
        yield
    finally:
        with _LOCK:
            dispatcher.users -= 1
            if not dispatcher.users:
                del _DISPATCHERS[module]
                dispatcher.remove()


def _part_of(blocks: nn.ModuleList) -> Part | None:
    parts = _PARTS.get()
    return parts.get(blocks) if parts is not None else None


class _OfBlock:
    """Skips a block, feeds it or captures what passes it, in calls that run a part of the model."""

    def __init__(self, blocks: nn.ModuleList, family: Family, index: int) -> None:
        self.users = 0
        self._blocks, self._index, self._family = blocks, index, family
        self._block = blocks[index]
        self._assigned = self._block.__dict__.get("forward")
        self._forward = self._block.forward
        self._block.forward = self._run
        self._handles = [
            self._block.register_forward_pre_hook(self._before),
            self._block.register_forward_hook(self._made, prepend=True),
            self._block.register_forward_hook(self._after),  # after any edit of its output
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        del self._block.forward
        if self._assigned is not None:
            self._block.forward = self._assigned

    def _run(self, *arguments: Any, **named: Any) -> Any:
        part = _part_of(self._blocks)
        if part is None or part.start <= self._index < part.stop:
            return self._forward(*arguments, **named)
        if part.raw and self._index == part.start - 1:
            return self._as_output(part.state)
        return self._as_output(_first(*arguments, **named))

    def _before(self, _block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        part = _part_of(self._blocks)
        if part is None:
            return None
        fed = part.state is not None and not part.raw and self._index == part.start and not part.fed
        captured = part.captured is not None and self._index == part.stop
        if (fed or captured) and not arguments:
            raise AnatomyError(
                f"A {self._family.name} block is not called with its hidden state as the first positional argument, "
                "so no part of the model can be run alone."
            )
        if part.captured is not None and captured:
            part.captured.append(arguments[0])
        if not fed or part.state is None:
            return None
        part.fed.append(part.state)
        return (part.state, *arguments[1:])

    def _made(self, _block: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        part = _part_of(self._blocks)
        if part is not None and part.made is not None and self._index == part.stop - 1:
            part.made.append(output[0] if isinstance(output, (tuple, list)) else output)

    def _after(self, _block: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        part, count = _part_of(self._blocks), len(self._blocks)
        if part is None:
            return None
        if self._index == part.start < part.stop:
            self._refuse_other_kind(output)
        if self._index < count - 1:
            return None
        if part.captured is not None and part.stop == count:
            part.captured.append(output[0] if isinstance(output, (tuple, list)) else output)
        return self._as_output(part.state) if part.start == count and not part.raw else None

    def _as_output(self, hidden: Any) -> Any:
        return _Passed((hidden, None)) if self._family.block_returns == "tuple" else hidden

    def _refuse_other_kind(self, output: Any) -> None:
        if isinstance(output, (tuple, list)) != (self._family.block_returns == "tuple"):
            kind = "tuple" if isinstance(output, (tuple, list)) else "tensor"
            raise AnatomyError(
                f"A {self._family.name} block is said to return a {self._family.block_returns}, and this one returns "
                f'a {kind}: describe the family with block_returns="{kind}".'
            )


class _Passed(tuple[Any, ...]):
    """The hidden state and one thing more, for models that unpack two; in any later place there is None (T5 asks for a third)."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        return None if isinstance(index, int) and index >= len(self) else super().__getitem__(index)


class _OfHead:
    """Gives the LM head only what is scored, in calls that score some positions."""

    def __init__(self, blocks: nn.ModuleList, head: nn.Module) -> None:
        self.users = 0
        self._blocks = blocks
        self._handle = head.register_forward_pre_hook(self._before)

    def remove(self) -> None:
        self._handle.remove()

    def _before(self, _head: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        part = _part_of(self._blocks)
        if part is None or part.scored is None:
            return None
        rows, columns = part.scored
        hidden = arguments[0]
        return (hidden[rows.to(hidden.device), columns.to(hidden.device)].unsqueeze(0), *arguments[1:])


def _first(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
