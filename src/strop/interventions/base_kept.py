"""While weights are edited: a model saves its base, and takes no other weights in the place of edited ones.

Where edited weights are changed all the same, by training or by an adapter that is merged into them, that is seen and said.
"""

import copy
import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from strop.errors import InterventionError
from strop.interventions.stand_in import StandIn


class _Overlay(Protocol):
    """What this asks of an attachment."""

    def guards(self, parameter: nn.Parameter) -> bool: ...
    def brings(self, parameter: nn.Parameter) -> bool: ...
    def base_of(self, parameter: nn.Parameter) -> Tensor | None: ...
    @property
    def changed(self) -> str | None: ...


LOST = "was changed after a recipe had edited it, by training or by a merge, and"
REMEDY = "bake the recipe, and train or merge the checkpoint"

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class BaseKept:
    """Stand-ins and hooks on a model for as long as an attachment edits its weights.

    Args:
        model: whose weights are edited.
        overlay: the attachment; not kept alive.
        holders: the modules whose weights are edited, by their names inside the model.
    """

    def __init__(self, model: nn.Module, overlay: _Overlay, holders: Mapping[str, nn.Module]) -> None:
        saving = [module for module in _saved_by_themselves(model) if hasattr(module, "save_pretrained")]
        self._stand_ins = [StandIn(module, "save_pretrained", _Saving(overlay), root=model) for module in saving]
        adapters = [module for module in model.modules() if _merges(module)] if _any_adapted(model, holders) else []
        for adapter in adapters:
            self._stand_ins += [StandIn(adapter, name, _refuse_merging, root=model) for name in ("merge", "unmerge")]
        guard = _Loading(overlay)
        self._handles = [
            module.register_load_state_dict_pre_hook(guard)  # type: ignore[no-untyped-call]
            for module in _around(model, holders)
        ]
        self._left = {
            name: (parameter, _figures(parameter))
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if overlay.base_of(parameter) is not None
        }

    def changed(self, but: Callable[[nn.Parameter], bool]) -> str | None:
        """Return the name of a weight that is not as the attachment left it, or None.

        Args:
            but: says which weights do not count.
        """
        return next(
            (
                name
                for name, (parameter, left) in self._left.items()
                if not but(parameter) and _are_others(_figures(parameter), left)
            ),
            None,
        )

    def replaced(self, model: nn.Module) -> str | None:
        """Return the name of an edited weight whose place another parameter has taken, or None."""
        held = set(model.parameters())
        return next((name for name, (parameter, _) in self._left.items() if parameter not in held), None)

    def remove(self) -> None:
        """Let the model save and load as it did."""
        for stand_in in self._stand_ins:
            stand_in.remove()
        for handle in self._handles:
            handle.remove()


def _figures(parameter: nn.Parameter) -> tuple[torch.dtype, torch.Size, Tensor]:
    """Return a weight's kind, and a sum over its bits that changes with its numbers."""
    numbers = parameter.detach()
    return numbers.dtype, numbers.shape, numbers.view(_BITS[numbers.element_size()]).sum(dtype=torch.int64)


def _are_others(now: tuple[torch.dtype, torch.Size, Tensor], left: tuple[torch.dtype, torch.Size, Tensor]) -> bool:
    """Return whether figures are of other numbers; a cast or a parting over devices says nothing of that."""
    same_kind = now[:2] == left[:2] and not (now[2].is_meta or left[2].is_meta)
    return same_kind and int(now[2]) != int(left[2])


def _saved_by_themselves(model: nn.Module) -> Iterator[nn.Module]:
    yield model
    inner = getattr(model, "base_model", model)
    if inner is not model:
        yield inner


def _around(model: nn.Module, holders: Iterable[str]) -> list[nn.Module]:
    """Return the modules that hold some others, these among them, the model itself first."""
    names = {""}
    for name in holders:
        parts = name.split(".")
        names |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return [model.get_submodule(name) for name in sorted(names)]


def _any_adapted(model: nn.Module, holders: Iterable[str]) -> bool:
    return any(_merges(model.get_submodule(name.rpartition(".")[0])) for name in holders)


def _merges(module: nn.Module) -> bool:
    """Return whether a module is an adapter's, that keeps another inside and can add itself to its weight."""
    return all(hasattr(module, name) for name in ("base_layer", "merge", "unmerge"))


def _refuse_merging(stand_in: StandIn, *_: Any, **__: Any) -> NoReturn:
    raise InterventionError(
        "A recipe edits weights that an adapter would be merged into, or taken out of, and its end would undo that; "
        "detach the recipe first, and attach it again afterwards."
    )


class _OfOverlay:
    """A function that asks an attachment, and goes with it when the model is copied."""

    def __init__(self, overlay: _Overlay) -> None:
        self._overlay = weakref.ref(overlay)

    @property
    def overlay(self) -> Any:
        return self._overlay()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        found = object.__new__(type(self))
        memo[id(self)] = found
        found._overlay = weakref.ref(copy.deepcopy(self.overlay, memo))
        return found


class _Saving(_OfOverlay):
    """Saves a model as it is without what is attached."""

    def __call__(self, stand_in: StandIn, *positional: Any, **named: Any) -> Any:
        module = stand_in.owner
        changed = self.overlay.changed
        if changed is not None:
            raise InterventionError(f"{changed} {LOST} the base that is saved knows nothing of that; {REMEDY}.")
        called = inspect.signature(type(module).save_pretrained).bind(module, *positional, **named)
        called.arguments["state_dict"] = self._of_base(module, called.arguments.get("state_dict"))
        return stand_in.own(*called.args[1:], **called.kwargs)

    def _of_base(self, module: nn.Module, state: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        found = dict(module.state_dict() if state is None else state)
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if name in found and self.overlay.brings(parameter):
                del found[name]
            elif name in found and (original := self.overlay.base_of(parameter)) is not None:
                found[name] = original
        return found


class _Loading(_OfOverlay):
    """Refuses other numbers for a weight that is edited; its own, before or after the edit, change nothing."""

    def __call__(
        self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any], *_: Any
    ) -> None:
        for name, parameter in module.named_parameters(remove_duplicate=False):
            given = state.get(prefix + name)
            if given is None or not self.overlay.guards(parameter):
                continue
            original = self.overlay.base_of(parameter)
            own = [parameter.data, *([] if original is None else [original])]
            if metadata.get("assign_to_params_buffers") or not any(_same(given, one) for one in own):
                raise InterventionError(
                    f"{prefix}{name} is edited by a recipe that is attached, and what is loaded into it would be lost when "
                    "that comes off; detach the recipe, load, and attach it again."
                )
            state[prefix + name] = parameter.data

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nothing_to_refuse, ())


def _same(given: Any, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape and torch.equal(given.to(own.device, own.dtype), own)


def _nothing_to_refuse() -> Any:
    """Return what stands for the refusal in a pickled model, whose weights are its own."""
    return _let_pass


def _let_pass(*_: Any) -> None:
    """Refuse nothing."""
