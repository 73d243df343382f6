"""Which tokens of a forward pass are padding, prompt and answer: from masks, cache lengths and labels, never from token ids.

A prompt's end is known where a model generates (what `generate` was given is the prompt), where labels are passed (the
prompt is what comes before the first label), where the model goes on with nothing (all of its input is), and where the caller
says so with `prompt_lengths`. Anywhere else it is not, and an edit that depends on it refuses to run.
"""

import contextlib
import contextvars
import dataclasses
import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from strop.errors import InterventionError, UsageError
from strop.interventions.positions import Positions

_READ: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""How many tokens edited models have read through a cache that does not say it: one of recurrent states alone (Mamba)."""
READ = ("input_ids", "inputs_embeds", "pixel_values")
"""What a model is called with to read: images count only where nothing is beside them."""

_DECLARED: contextvars.ContextVar[Tensor | None] = contextvars.ContextVar("strop_prompt_lengths", default=None)


@contextlib.contextmanager
def prompt_lengths(lengths: Sequence[int] | Tensor) -> Iterator[None]:
    """Say how long the prompts are that a model is called on within the block.

    Without a two-dimensional attention mask every sequence is taken to begin in the first column.

    Args:
        lengths: (batch,), how many real tokens each sequence's prompt has, a beginning-of-text token included.

    Raises:
        UsageError: a length is negative, or they are not one number for each sequence.

    >>> import torch
    >>> with prompt_lengths([5, 3]):
    ...     pass  # model(input_ids, attention_mask)
    """
    declared = torch.as_tensor(lengths, dtype=torch.long)
    if declared.ndim != 1 or bool((declared < 0).any()):
        raise UsageError("prompt_lengths takes one length for each sequence, 0 or more tokens.")
    token = _DECLARED.set(declared)
    try:
        yield
    finally:
        _DECLARED.reset(token)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of one forward pass stand in their sequences."""

    index: Tensor
    """(batch, tokens): how many real tokens of its sequence come before each; negative for padding."""
    prompt_length: Tensor | None
    """(batch,): how many real tokens the prompt has; None where that cannot be known."""
    reason: str = ""
    """Why it cannot be known."""

    @property
    def padded(self) -> bool:
        """Whether a token is padding."""
        return bool((self.index < 0).any())


class Prompts:
    """The prompts that one call of `generate` was given, by which its own steps are told from calls made beside it."""

    def __init__(self, inputs: Mapping[str, Any], positional: Sequence[Any]) -> None:
        """Read them off what `generate` was called with.

        Args:
            inputs: its keyword arguments.
            positional: its positional ones, of which the first is the token ids.

        Raises:
            InterventionError: several rows without an attention mask, of which it cannot be said which tokens are padding.
        """
        given = [inputs.get(name) for name in ("inputs_embeds", "input_ids", "inputs")]
        self._texts: Tensor | None = next((one for one in [*given, *positional[:1]] if one is not None), None)
        self._cache = _cache_of(inputs)
        mask = inputs.get("attention_mask")
        self.mask: Tensor | None = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        """(rows, columns), 1 for real tokens; None where neither ids nor embeddings were given."""
        if self.mask is None and self._texts is not None:
            if self._texts.shape[0] > 1:
                raise InterventionError(
                    "Which tokens of a batch are padding cannot be read off their ids; pass generate the attention_mask the "
                    "tokenizer returns."
                )
            self.mask = torch.ones(self._texts.shape[:2], dtype=torch.long, device=self._texts.device)

    def are_read_by(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether a forward pass is a step of this generation, or reads the very same texts.

        A step is known by the cache it goes on from; where there is none yet, by its tokens and its mask.

        Args:
            arguments: of the model's forward, by name.
        """
        if self.mask is None or isinstance(arguments.get("labels"), Tensor):
            return False
        past = _cache_of(arguments)
        if past is not None and past is self._cache:
            return True
        first = past is not None and self._cache is None  # only then a call may stop short of the prompts' end
        if _cached_tokens(past) or not self._same_texts(arguments, in_part=first):
            return False
        if first:
            self._cache = past
        return True

    def _same_texts(self, arguments: Mapping[str, Any], *, in_part: bool) -> bool:
        tokens, mask = tokens_of(arguments), arguments.get("attention_mask")
        if self._texts is None or self.mask is None or tokens.shape[0] % self._texts.shape[0]:
            return False
        columns = min(tokens.shape[1], self._texts.shape[1])
        if columns < self._texts.shape[1] and not in_part:
            return False
        copies = tokens.shape[0] // self._texts.shape[0]
        own = self._texts[:, :columns].repeat_interleave(copies, dim=0)
        if tokens.shape[2:] != own.shape[2:] or not bool((tokens[:, :columns] == own.to(tokens.device)).all()):
            return False
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            return True
        real = self.mask[:, : mask.shape[1]].repeat_interleave(copies, dim=0).to(mask.device) != 0
        width = real.shape[1]
        return torch.equal(mask[:, :width] != 0, real) and bool((mask[:, width:] != 0).all())


def arguments_of(module: nn.Module, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a module's call by name, but those by place that its forward has no names for."""
    if not positional:
        return dict(named)
    parameters = inspect.signature(type(module).forward).parameters
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [name for name, entry in parameters.items() if name != "self" and entry.kind not in unnamed]
    return {**dict(zip(names, positional, strict=False)), **named}


def tokens_of(arguments: Mapping[str, Any]) -> Tensor:
    """Return the token ids of a call, or their embeddings, whose first two axes are (batch, tokens); or images alone.

    Raises:
        InterventionError: the call has none of these.
    """
    for name in READ:
        found = arguments.get(name)
        if isinstance(found, Tensor):
            return found
    raise InterventionError(
        "An edit of hidden states needs input_ids or inputs_embeds, or pixel_values of images, to tell where tokens stand."
    )


def shows_images(arguments: Mapping[str, Any]) -> bool:
    """Return whether a call is of images and nothing besides, so that its tokens are what the model makes of them."""
    return not any(isinstance(arguments.get(name), Tensor) for name in ("input_ids", "inputs_embeds"))


def layout_of_images(shape: tuple[int, ...]) -> Layout:
    """Return where the tokens of images stand: all of an image's are its prompt, the class token first, then the patches.

    Args:
        shape: (images, tokens), as hidden states have it.
    """
    images, tokens = shape
    return Layout(torch.arange(tokens).expand(images, tokens), torch.full((images,), tokens))


def layout_of(arguments: Mapping[str, Any], *, prompt_mask: Tensor | None, whole_input: bool) -> Layout:
    """Return where the tokens of a call stand.

    Args:
        arguments: of the model's forward, by name.
        prompt_mask: (rows, columns), of the prompts `generate` was given, where the call is one of its steps.
        whole_input: the model goes on with nothing, as a classifier or what fills masks, so there is nothing but a prompt.

    Raises:
        InterventionError: lengths were declared for another number of sequences, the call has neither ids nor embeddings, or
            how many tokens its cache holds cannot be known.
    """
    tokens = tokens_of(arguments)
    batch, count = tokens.shape[:2]
    cached = _cached_tokens(_cache_of(arguments))
    declared = _DECLARED.get()
    if declared is None and prompt_mask is not None:
        return _while_generating(prompt_mask.to(tokens.device), batch, cached, count)
    mask = arguments.get("attention_mask")
    flat = isinstance(mask, Tensor) and mask.ndim == 2
    index = _from_mask(mask, cached, count) if isinstance(mask, Tensor) and flat else _from_zero(tokens, cached)
    plain = flat or mask is None
    if declared is not None:
        if declared.shape[0] != batch:
            raise InterventionError(
                f"Prompt lengths were given for {declared.shape[0]} sequences, and there are {batch}."
            )
        return Layout(index, declared.to(tokens.device), "") if plain else _unknown(index, "its mask is no plain one")
    if _packed(arguments):
        return _unknown(index, "several sequences are packed into one row")
    if not flat and (mask is not None or batch > 1):
        return _unknown(index, "no two-dimensional attention_mask says which tokens are padding")
    labels = arguments.get("labels")
    if whole_input:
        return Layout(index, (index >= 0).sum(1))
    if isinstance(labels, Tensor) and labels.ndim == 2 and cached == 0:
        return Layout(index, _before_labels(labels.to(index.device), index))
    return _unknown(index, "neither labels nor generate says where they do")


def count_read(arguments: Mapping[str, Any]) -> None:
    """Note that a call reads its tokens through its cache, where that does not say how many it holds.

    Args:
        arguments: of the model's forward, by name.
    """
    past = _cache_of(arguments)
    if past is not None and not _says_length(past):
        _READ[past] = _cached_tokens(past) + tokens_of(arguments).shape[1]


def layout_in_decoder(arguments: Mapping[str, Any]) -> Layout:
    """Return where the tokens of a decoder's call stand, whose prompt an encoder has read.

    Args:
        arguments: of the decoder's forward, by name.
    """
    tokens = tokens_of(arguments)
    return _unknown(_from_zero(tokens, _cached_tokens(_cache_of(arguments))), "the encoder reads them")


def edited_tokens(positions: Positions, layout: Layout) -> Tensor:
    """Return which tokens of a forward pass an edit touches, (batch, tokens), boolean.

    Raises:
        InterventionError: it depends on where prompts end, and that cannot be known.
    """
    length = layout.prompt_length
    if length is None and positions.reach != "all":
        raise InterventionError(
            f"An edit at {positions} needs to know where prompts end, and {layout.reason}: generate, pass labels (-100 on "
            "the prompt) with an attention_mask, or call the model inside strop.prompt_lengths([...])."
        )
    return positions.chosen(layout.index, length if length is not None else layout.index[:, 0])


def _cache_of(arguments: Mapping[str, Any]) -> Any:
    """Return the cache a call goes on from, under either name; None without one."""
    past = arguments.get("past_key_values")
    return past if past is not None else arguments.get("cache_params")


def _cached_tokens(past: Any) -> int:
    """Return how many tokens a cache holds.

    Raises:
        InterventionError: it does not say, and some were read through it unseen.
    """
    if past is None or _says_length(past):
        return int(past.get_seq_length()) if past is not None else 0
    read = _READ.get(past, 0)
    if not read and past.has_previous_state():
        raise InterventionError(
            "How many tokens this cache holds cannot be known, for edited calls have not filled it from the first: pass a new "
            "one, DynamicCache(config=model.config), as cache_params from the first call on."
        )
    return read


def _says_length(past: Any) -> bool:
    try:
        return int(past.get_seq_length()) >= 0
    except ValueError:  # nothing in recurrent states grows with the tokens
        return False


def _unknown(index: Tensor, reason: str) -> Layout:
    return Layout(index, None, reason)


def _from_zero(tokens: Tensor, cached: int) -> Tensor:
    count = tokens.shape[1]
    return torch.arange(cached, cached + count, device=tokens.device).expand(tokens.shape[0], count)


def _from_mask(mask: Tensor, cached: int, count: int) -> Tensor:
    seen = mask[:, : cached + count].long()
    return torch.where(seen > 0, seen.cumsum(1) - 1, -1)[:, -count:]


def _while_generating(mask: Tensor, batch: int, cached: int, count: int) -> Layout:
    """Place tokens by their column: those beyond the prompt's columns are generated ones.

    Beams and several returned sequences repeat each prompt's row.
    """
    if batch % mask.shape[0]:
        return _unknown(mask.new_zeros(batch, count), f"{mask.shape[0]} prompts cannot have become {batch} rows")
    real = mask.repeat_interleave(batch // mask.shape[0], dim=0).long()
    length = real.sum(1)
    generated = cached + count - real.shape[1]
    if generated > 0:
        real = torch.cat([real, real.new_ones(batch, generated)], dim=1)
    return Layout(_from_mask(real, cached, count), length)


def _before_labels(labels: Tensor, index: Tensor) -> Tensor:
    """Return how many real tokens come before each row's first label; all of them where a row has none."""
    real = index >= 0
    answered = (labels != -100).cumsum(1) > 0
    return (real & ~answered).sum(1)


def _packed(arguments: Mapping[str, Any]) -> bool:
    if arguments.get("cu_seq_lens_q") is not None:
        return True
    ids = arguments.get("position_ids")
    mask = arguments.get("attention_mask")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[1] < 2:
        return False
    if mask is not None and (mask.ndim != 2 or len(mask) != len(ids)):
        return False
    begins_anew = ids[:, 1:] < ids[:, :-1]
    if mask is not None:  # padding on the left has positions of its own
        real = mask[:, -ids.shape[1] :].to(ids.device) > 0
        begins_anew = begins_anew & real[:, 1:] & real[:, :-1]
    return bool(begins_anew.any())
