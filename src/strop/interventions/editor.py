"""Edit hidden states while a model runs: one hook a module, the positions worked out once a forward pass.

The hooks hold no count of calls and change nothing in place. What they need to know of a pass, its `Layout`, is read off
the arguments of the model's forward before it runs, and off those of `generate`, which is the only method replaced, on the
one model, for as long as an edit is on.
"""

import contextlib
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy
from strop.errors import InterventionError
from strop.interventions.low_rank_edit import EditModule
from strop.interventions.positions import Positions
from strop.interventions.prompts import Layout, arguments_of, edited_tokens, layout_of, prompt_mask_of, tokens_of

_NAME = "_strop_editor"


@dataclasses.dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass: where its tokens stand, and which of them edits were found to touch."""

    layout: Layout
    chosen: dict[Positions, Tensor | None] = dataclasses.field(default_factory=dict)


class StateEditor:
    """All edits of hidden states that are on one model, in the order they were put there; see `editor_of`.

    Args:
        model: with or without an LM head.
        anatomy: of that model.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy) -> None:
        self._model = model
        self._anatomy = anatomy
        self._edits: dict[nn.Module, list[EditModule]] = defaultdict(list)
        self._hooks: dict[nn.Module, Any] = {}
        self._pass: _Pass | None = None
        self._checkpointed: dict[Any, Callable[..., Any]] = {}
        self._within: nn.Module | None = None
        self._called_on: Tensor | None = None
        self._prompt_mask: Tensor | None = None
        self._whole_input = model.get_output_embeddings() is None
        self._entrances: dict[nn.Module, list[Any]] = {}
        for entrance in (model, model.base_model):
            self.watch(entrance)
        self._own_generate = model.__dict__.get("generate")
        if hasattr(model, "generate"):
            model.__dict__["generate"] = functools.wraps(model.generate)(functools.partial(_generate, self))

    def watch(self, entrance: nn.Module) -> None:
        """Read the arguments of another module the model is called through, such as PEFT's wrapper."""
        if entrance not in self._entrances:
            self._entrances[entrance] = [
                entrance.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True),
                entrance.register_forward_hook(self._leave, always_call=True),
            ]

    def add(self, edits: Sequence[EditModule]) -> None:
        """Put edits on, after those that are on already."""
        for edit in edits:
            module = self._anatomy.stream_module(self._model, edit.edit.site)
            if not self._edits[module]:
                self._hooks[module] = module.register_forward_hook(self._edit_output, prepend=True)
            self._edits[module].append(edit)

    def remove(self, edits: Sequence[EditModule]) -> None:
        """Take edits off; with the last one the model is as it was."""
        for edit in edits:
            module = self._anatomy.stream_module(self._model, edit.edit.site)
            self._edits[module].remove(edit)
            if not self._edits[module]:
                self._hooks.pop(module).remove()
                del self._edits[module]
        if self._edits:
            return
        self._forget_checkpointed()
        for handle in (handle for handles in self._entrances.values() for handle in handles):
            handle.remove()
        self._model.__dict__.pop("generate", None)
        if self._own_generate is not None:
            self._model.__dict__["generate"] = self._own_generate
        self._model.__dict__.pop(_NAME, None)

    def _enter(self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        arguments = arguments_of(module, positional, named)
        if not {"input_ids", "inputs_embeds"} & arguments.keys() and module not in (
            self._model,
            self._model.base_model,
        ):
            return  # a wrapper that hands on by place what the model has names for
        tokens = tokens_of(arguments)
        if self._within not in (None, module) and tokens is self._called_on:
            return  # the model with its LM head calls the one without
        self._forget_checkpointed()  # an interrupted pass was never left
        self._within, self._called_on = module, tokens
        self._pass = _Pass(layout_of(arguments, prompt_mask=self._prompt_mask, whole_input=self._whole_input))
        blocks: Iterable[Any] = self._anatomy.blocks(self._model)
        for block in blocks:
            if block.training and getattr(block, "gradient_checkpointing", False):
                self._checkpointed[block] = block._gradient_checkpointing_func
                block._gradient_checkpointing_func = functools.partial(
                    _checkpoint, self, self._pass, block._gradient_checkpointing_func
                )

    def _leave(self, module: nn.Module, _positional: tuple[Any, ...], _output: Any) -> None:
        if module is self._within:
            self._within = self._called_on = None
            self._forget_checkpointed()

    def _forget_checkpointed(self) -> None:
        for block, own in self._checkpointed.items():
            block._gradient_checkpointing_func = own
        self._checkpointed.clear()

    @contextlib.contextmanager
    def _during(self, its_pass: _Pass) -> Iterator[None]:
        before, self._pass = self._pass, its_pass
        try:
            yield
        finally:
            self._pass = before

    def _edit_output(self, module: nn.Module, _positional: tuple[Any, ...], output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        edited = states
        for edit in self._edits[module]:
            edited = self._edited(edit, edited)
        if edited is states:
            return None
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    def _edited(self, edit: EditModule, states: Tensor) -> Tensor:
        tokens = self._tokens(edit.edit.positions, states.shape)
        edit.follow(states.device)
        if tokens is None:
            return edit(states.flatten(0, 1)).view(states.shape)  # type: ignore[no-any-return]
        if tokens.shape[0] == 0:
            return states
        flat = states.flatten(0, 1)
        tokens = tokens.to(states.device)
        return flat.index_copy(0, tokens, edit(flat.index_select(0, tokens))).view(states.shape)

    def _tokens(self, positions: Positions, shape: torch.Size) -> Tensor | None:
        """Return the edited tokens' indices among all of the batch, (edited,), or None for every one of them."""
        recomputing = torch._C._current_graph_task_id() != -1  # a checkpointed block runs again inside backward
        if self._pass is None or not (self._within is not None or recomputing):
            raise InterventionError(
                "A block was called by itself, and which of its tokens are a prompt cannot be known; call the model."
            )
        layout, chosen = self._pass.layout, self._pass.chosen
        if tuple(layout.index.shape) != tuple(shape[:2]):
            raise InterventionError(
                f"Hidden states of shape {tuple(shape)} do not belong to the {tuple(layout.index.shape)} tokens the model "
                "was called on."
            )
        if positions not in chosen:
            chosen[positions] = _flat_indices(positions, layout)
        return chosen[positions]


def _flat_indices(positions: Positions, layout: Layout) -> Tensor | None:
    if positions.reach == "all" and not layout.padded:
        return None
    return edited_tokens(positions, layout).flatten().nonzero().flatten()


def _checkpoint(
    editor: StateEditor, its_pass: _Pass, own: Callable[..., Any], block: Callable[..., Any], *arguments: Any
) -> Any:
    """Checkpoint a block that, when it runs again inside backward, edits the tokens of its own pass and not the latest."""

    def run(*again: Any) -> Any:
        with editor._during(its_pass):
            return block(*again)

    return own(run, *arguments)


def _generate(editor: StateEditor, *positional: Any, **named: Any) -> Any:
    """Generate as the model's class does, while the editor knows what the prompts were."""
    own: Callable[..., Any] = editor._own_generate or functools.partial(type(editor._model).generate, editor._model)
    _refuse_second_prompt(editor, positional, named)
    before = editor._prompt_mask
    editor._prompt_mask = prompt_mask_of(named, positional)
    try:
        return own(*positional, **named)
    finally:
        editor._prompt_mask = before


def _refuse_second_prompt(editor: StateEditor, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raise where guidance has the model read prompts beside those `generate` is given."""
    settings = named.get("generation_config") or next(iter(positional[1:2]), None) or editor._model.generation_config
    scale = named.get("guidance_scale", getattr(settings, "guidance_scale", None))
    reaches = {edit.edit.positions.reach for edits in editor._edits.values() for edit in edits}
    if scale not in (None, 1) and reaches != {"all"}:
        raise InterventionError(
            "With a guidance_scale the model reads a second prompt, and where that one ends cannot be known; generate "
            "without it, or edit at positions all."
        )


def editor_of(model: PreTrainedModel, anatomy: Anatomy) -> StateEditor:
    """Return the editor that is on a model, or put one there."""
    editor = model.__dict__.get(_NAME)
    if not isinstance(editor, StateEditor):
        editor = StateEditor(model, anatomy)
        model.__dict__[_NAME] = editor
    return editor
