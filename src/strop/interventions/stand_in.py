"""A function in the place of one method of a module, of that one object alone, for as long as something is attached."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

from torch import nn


class StandIn:
    """A function in the place of a module's method, until `remove`; several on one method come off in any order.

    A deep copy of the module has one of its own, and a pickled module the method itself.

    Args:
        owner: the module.
        name: of the method.
        act: called with the stand-in, and then with what the method is called with.
        root: the model the module is a part of; neither is kept alive.
    """

    def __init__(self, owner: nn.Module, name: str, act: Callable[..., Any], *, root: nn.Module) -> None:
        self._owner, self._root = weakref.ref(owner), weakref.ref(root)
        self._name, self._act = name, act
        self._before: Any = owner.__dict__.get(name)
        owner.__dict__[name] = self

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Do what stands for the method."""
        return self._act(self, *positional, **named)

    @property
    def owner(self) -> Any:
        """The module."""
        return self._owner()

    @property
    def root(self) -> Any:
        """The model."""
        return self._root()

    @property
    def own(self) -> Callable[..., Any]:
        """The method it stands for, of the module."""
        method: Callable[..., Any] = self._before or getattr(type(self.owner), self._name).__get__(self.owner)
        return method

    def remove(self) -> None:
        """Let the method be what it was."""
        owner = self.owner
        if owner is None:
            return
        above = owner.__dict__.get(self._name)
        if above is self and self._before is None:
            del owner.__dict__[self._name]
        elif above is self:
            owner.__dict__[self._name] = self._before
        else:
            while isinstance(above, StandIn) and above._before is not self:
                above = above._before
            if isinstance(above, StandIn):
                above._before = self._before

    def __deepcopy__(self, memo: dict[int, Any]) -> "StandIn":
        found = object.__new__(StandIn)
        memo[id(self)] = found
        found._owner, found._root = (weakref.ref(copy.deepcopy(one, memo)) for one in (self.owner, self.root))
        found._name = self._name
        found._act, found._before = copy.deepcopy((self._act, self._before), memo)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self.owner, self._name))
