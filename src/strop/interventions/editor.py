"""Edit hidden states while a model runs: one hook a module, the positions worked out once a forward pass.

Which tokens are edited belongs to a call, not to the model: what the hooks need to know of a pass is read off the arguments
of the model's forward before it runs, and off those of `generate`, and is kept with the call that is going on in this
thread. `generate` is the only method replaced, on the one model, for as long as an edit is on.
"""

import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Stack
from strop.errors import InterventionError, StropWarning
from strop.interventions.calls import Calls
from strop.interventions.compiled import never_compiled
from strop.interventions.copies import copy_with_model, refuse_pickling
from strop.interventions.edit_module import frames_together
from strop.interventions.interfaces import StateIntervention
from strop.interventions.positions import Positions
from strop.interventions.prompts import (
    READ,
    Layout,
    Prompts,
    arguments_of,
    count_read,
    edited_tokens,
    layout_in_decoder,
    layout_of,
    layout_of_images,
    shows_images,
    tokens_of,
)
from strop.interventions.state_edit import StateEdit
from strop.interventions.weights import stand_for_weights_first
from strop.linalg import Frames

_NAME = "_strop_editor"


@dataclasses.dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass: where its tokens stand, and which of them edits were found to touch."""

    entrance: nn.Module
    """The module that was called."""
    tokens: Tensor
    layout: Layout | None
    """None of images, whose tokens only hidden states show."""
    frames: dict[nn.Module, tuple[Tensor, Frames]] = dataclasses.field(default_factory=dict)
    """What edits that learn make their bases orthonormal by, made together."""
    chosen: dict[tuple[Positions, torch.Size | None], Tensor | None] = dataclasses.field(default_factory=dict)

    def indices(self, positions: Positions, shape: torch.Size | None = None) -> Tensor | None:
        """Return the tokens at some positions by their index among all of the batch, (edited,), or None for every one.

        Args:
            positions: of an edit.
            shape: of the hidden states of images, (images, tokens).
        """
        if (positions, shape) not in self.chosen:
            layout = layout_of_images(shape) if shape is not None else self.layout
            assert layout is not None  # only images have none
            self.chosen[positions, shape] = _flat_indices(positions, layout)
        return self.chosen[positions, shape]


_PASSES: Calls[_Pass] = Calls("strop_passes")
_GENERATIONS: Calls[Prompts] = Calls("strop_generations")


class StateEditor:
    """All edits of hidden states that are on one model, in the order they were put there; see `editor_of`.

    Args:
        model: with or without an LM head.
        anatomy: of that model.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy) -> None:
        self._model = model
        self._anatomy = anatomy
        self._sites: dict[nn.Module, _EditedModule] = {}
        self._whole_input = model.get_output_embeddings() is None or not anatomy.family.causal
        self._decoder = model.get_decoder() if Stack.CROSS in anatomy.stacks else None
        """Of a model that reads the prompt in an encoder."""
        self._entrances: dict[nn.Module, list[Any]] = {}
        for entrance in self._own_entrances:
            self.watch(entrance)
        self._own_generate = model.__dict__.get("generate")
        if hasattr(model, "generate"):
            model.__dict__["generate"] = functools.wraps(model.generate)(functools.partial(_generate, self))

    @property
    def _own_entrances(self) -> tuple[nn.Module, nn.Module]:
        """What the model's tokens come in by: itself with its head and without, or its encoder and its decoder."""
        if self._decoder is not None:
            return self._model.get_encoder(), self._decoder
        return self._model, self._model.base_model

    def watch(self, entrance: nn.Module) -> None:
        """Read the arguments of another module the model is called through, such as PEFT's wrapper."""
        if entrance not in self._entrances:
            enter = self._enter if entrance in self._own_entrances else self._enter_wrapper
            self._entrances[entrance] = [
                entrance.register_forward_pre_hook(enter, with_kwargs=True, prepend=True),
                entrance.register_forward_hook(self._leave, always_call=True),
            ]

    def add(self, edits: Sequence[StateEdit]) -> None:
        """Put edits on, after those that are on already."""
        for edit in edits:
            self._refuse_prompts_of_a_decoder(edit.entry)
            module = self._anatomy.stream_module(self._model, edit.entry.site)
            if module not in self._sites:
                self._sites[module] = _EditedModule(self, module)
            self._sites[module].edits += (edit,)

    def _refuse_prompts_of_a_decoder(self, entry: StateIntervention) -> None:
        """Raise where an edit counts prompt tokens among those of a decoder."""
        if self._decoder is not None and entry.site.stack is not Stack.ENCODER and entry.positions.reach != "all":
            raise InterventionError(
                f"{entry.site}: the encoder reads the prompt, and a decoder has none to edit at {entry.positions}; edit at "
                "positions all, or in the encoder."
            )

    def remove(self, edits: Sequence[StateEdit]) -> None:
        """Take edits off; with the last one the model is as it was."""
        for edit in edits:
            module = self._anatomy.stream_module(self._model, edit.entry.site)
            site = self._sites[module]
            site.edits = tuple(other for other in site.edits if other is not edit)
            if not site.edits:
                site.handle.remove()
                del self._sites[module]
        if self._sites:
            return
        for block in self._blocks(self._model):
            own = getattr(block, "_gradient_checkpointing_func", None)
            if isinstance(own, _Checkpoint):
                block.__dict__["_gradient_checkpointing_func"] = own.own
        for handle in (handle for handles in self._entrances.values() for handle in handles):
            handle.remove()
        self._model.__dict__.pop("generate", None)
        if self._own_generate is not None:
            self._model.__dict__["generate"] = self._own_generate
        self._model.__dict__.pop(_NAME, None)

    @property
    def edits(self) -> tuple[StateEdit, ...]:
        """All that are on."""
        return tuple(edit for site in self._sites.values() for edit in site.edits)

    def __deepcopy__(self, memo: dict[int, Any]) -> "StateEditor":
        return copy_with_model(self, memo)

    def __reduce__(self) -> NoReturn:
        refuse_pickling()

    @never_compiled
    def _enter_wrapper(self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        arguments = arguments_of(module, positional, named)
        if any(name in arguments for name in READ):  # else it hands on by place what the model has names for
            self._begin(module, arguments)

    @never_compiled
    def _enter(self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Begin a pass of the model, or of a replica of it, which has the model's hooks and modules of its own."""
        replica = module if isinstance(module, type(self._model)) else self._model
        for block in self._blocks(replica):
            if block.training and getattr(block, "gradient_checkpointing", False):
                own: Any = block._gradient_checkpointing_func
                if not isinstance(own, _Checkpoint):
                    block.__dict__["_gradient_checkpointing_func"] = _Checkpoint(self, own)
        self._begin(module, arguments_of(module, positional, named))

    def _blocks(self, model: PreTrainedModel) -> Iterator[nn.Module]:
        for stack in self._anatomy.stacks:
            yield from self._anatomy.blocks(model, stack)

    def _begin(self, module: nn.Module, arguments: dict[str, Any]) -> None:
        tokens, around = tokens_of(arguments), _PASSES.latest(self)
        if around is not None and around.entrance is not module and around.tokens is tokens:
            return  # the model with its LM head calls the one without
        if shows_images(arguments):
            _PASSES.enter(self, _Pass(module, tokens, None, self._frames()), _frame_of_call())
            return
        prompts = _GENERATIONS.latest(self)
        mask = prompts.mask if prompts is not None and prompts.are_read_by(arguments) else None
        if module is self._decoder:
            layout = layout_in_decoder(arguments)
        else:
            layout = layout_of(arguments, prompt_mask=mask, whole_input=self._whole_input)
        count_read(arguments)
        begun = _Pass(module, tokens, layout, self._frames())
        if module.training and torch.is_grad_enabled() and layout.prompt_length is not None:
            self._refuse_to_learn_nothing(begun, arguments.get("labels"))
        _PASSES.enter(self, begun, _frame_of_call())

    def _frames(self) -> dict[nn.Module, tuple[Tensor, Frames]]:
        """Make the frames of all edits that learn at once; where blocks run again inside backward each makes its own."""
        if not torch.is_grad_enabled() or any(
            block.training and getattr(block, "gradient_checkpointing", False) for block in self._blocks(self._model)
        ):
            return {}
        return frames_together(edit.module for edit in self.edits)

    def _refuse_to_learn_nothing(self, begun: _Pass, labels: Any) -> None:
        """Raise where edits are to learn from a batch in which they touch no token, and warn where it has no label."""
        learning = {edit.entry.positions for edit in self.edits if _learns(edit.module)}
        touched = (tokens is None or len(tokens) for tokens in map(begun.indices, learning))
        if learning and not any(touched):
            raise InterventionError(
                "No row of the batch has a prompt before its labels, so an edit at "
                f"{' or '.join(sorted(map(str, learning)))} touches nothing; give prompts and completions, or edit at all."
            )
        if learning and isinstance(labels, Tensor) and not labels.is_floating_point() and bool((labels == -100).all()):
            warnings.warn(
                "No row of a batch has a label, for all are -100, so that nothing is learned from it; give completions behind "
                "the prompts, or let rows be longer.",
                StropWarning,
                stacklevel=2,
            )

    @never_compiled
    def _leave(self, module: nn.Module, _positional: tuple[Any, ...], _output: Any) -> None:
        found = _PASSES.latest(self)
        if found is not None and found.entrance is module:
            _PASSES.leave(found)
            for frames in {id(frames): frames for _, frames in found.frames.values()}.values():
                frames.check()  # when all is under way: whoever reads the loss waits as well


class _EditedModule:
    """A module whose output is edited; what it holds is the hook, so that a replica of the module is edited by it too."""

    def __init__(self, editor: StateEditor, module: nn.Module) -> None:
        self.edits: tuple[StateEdit, ...] = ()
        """In the order they were put on."""
        self._editor = editor
        self.handle = module.register_forward_hook(self._edit, prepend=True)
        stand_for_weights_first(module)

    @never_compiled
    def _edit(self, module: nn.Module, _positional: tuple[Any, ...], output: Any) -> Any:
        states = output[0] if isinstance(output, (tuple, list)) else output
        edited = states
        for edit in self.edits:
            edited = self._edited(edit, edited, replica=getattr(module, "_is_replica", False))
        if edited is states:
            return None
        return (edited, *output[1:]) if isinstance(output, (tuple, list)) else edited

    def _edited(self, edit: StateEdit, states: Tensor, *, replica: bool) -> Tensor:
        its_pass = _PASSES.latest(self._editor)
        tokens = _tokens(its_pass, edit.entry.positions, states.shape[:-1])
        if tokens is not None and tokens.shape[0] == 0 and not torch.is_grad_enabled():
            return states  # where gradients are added up over processes each edit must take part
        compute: Callable[..., Tensor] = edit.on(states.device, replica=replica)
        made = its_pass.frames.get(edit.module) if its_pass is not None and compute is edit.module else None
        if made is not None:
            compute = functools.partial(compute, rows=made[0].to(states.device))
        flat = states.flatten(0, -2)
        if tokens is None:
            return compute(flat).view(states.shape)
        tokens = tokens.to(states.device)
        return flat.index_copy(0, tokens, compute(flat.index_select(0, tokens))).view(states.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class _Checkpoint:
    """Checkpoint a block that, when it runs again inside backward, edits the tokens of its own pass and not the latest.

    It may run again in another thread: autograd has one for each device.
    """

    editor: StateEditor
    own: Callable[..., Any]

    def __call__(self, block: Callable[..., Any], *arguments: Any) -> Any:
        its_pass = _PASSES.latest(self.editor)
        if its_pass is None:
            return self.own(block, *arguments)

        def run(*again: Any) -> Any:
            _PASSES.enter(self.editor, its_pass, sys._getframe())
            try:
                return block(*again)
            finally:
                _PASSES.leave(its_pass)

        return self.own(run, *arguments)


def _frame_of_call() -> FrameType:
    """Return the frame of the module's call that runs the hook that asks."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename != nn.modules.module.__file__:
        frame = frame.f_back
    return frame


def _tokens(its_pass: _Pass | None, positions: Positions, shape: torch.Size) -> Tensor | None:
    """Return the edited tokens' indices among all of the batch, (edited,), or None for every one of them."""
    if its_pass is None and torch._C._current_graph_task_id() != -1:
        raise InterventionError(
            "A module was run again inside backward, and which pass it belongs to cannot be known; use the model's own "
            "gradient checkpointing, and no other."
        )
    if its_pass is None:
        raise InterventionError(
            "A block was called by itself, and which of its tokens are a prompt cannot be known; call the model."
        )
    layout = its_pass.layout
    if layout is None:
        if len(shape) != 2 or shape[0] != len(its_pass.tokens):
            raise InterventionError(
                f"Hidden states of {tuple(shape)} tokens are not those of {len(its_pass.tokens)} whole images; edit other ones, "
                "such as those that leave a block."
            )
        return its_pass.indices(positions, shape)
    if shape not in (layout.index.shape, (layout.index.numel(),)):  # some modules see all tokens one after another
        raise InterventionError(
            f"Hidden states of {tuple(shape)} tokens do not belong to the {tuple(layout.index.shape)} the model was called "
            "on."
        )
    return its_pass.indices(positions)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _flat_indices(positions: Positions, layout: Layout) -> Tensor | None:
    if positions.reach == "all" and not layout.padded:
        return None
    return edited_tokens(positions, layout).flatten().nonzero().flatten()


def _generate(editor: StateEditor, *positional: Any, **named: Any) -> Any:
    """Generate as the model's class does, while it is known what the prompts were."""
    own: Callable[..., Any] = editor._own_generate or functools.partial(type(editor._model).generate, editor._model)
    _refuse_second_prompt(editor, positional, named)
    prompts = Prompts(named, positional)
    _GENERATIONS.enter(editor, prompts, sys._getframe())
    try:
        return own(*positional, **named)
    finally:
        _GENERATIONS.leave(prompts)


def _refuse_second_prompt(editor: StateEditor, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raise where guidance has the model read prompts beside those `generate` is given."""
    settings = named.get("generation_config") or next(iter(positional[1:2]), None) or editor._model.generation_config
    scale = named.get("guidance_scale", getattr(settings, "guidance_scale", None))
    if scale not in (None, 1) and {edit.entry.positions.reach for edit in editor.edits} != {"all"}:
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
