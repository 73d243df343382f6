"""Text the base model writes itself: what it says when nobody asks it anything, which an edit should leave alone."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import evaluating, input_device
from strop.errors import UsageError
from strop.files import cache_folder, replacing_file
from strop.progress import SILENT, Progress
from strop.scoring.encoding import vocabulary_of
from strop.scoring.generation import end_tokens, generating_by

TEXT_TOKENS = 96
"""Tokens of a text, of which the first half counts as a prompt."""

TURN_TOKENS = 32
"""Tokens of a user's turn, where the model has a chat template."""

DATE = "1 January 2025"
"""What a chat template that prints today's date prints in its place, lest it make other texts every day."""
FIXED_DATE = f"{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}"

CHUNK_TEXTS = 16
"""Texts that are sampled and kept together: any number of chunks holds the same first texts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """Token sequences of one length, of which the first tokens count as a prompt.

    Raises:
        UsageError: there are no texts, or nothing follows the prompt.
    """

    ids: Tensor
    """(texts, tokens)."""
    prompt_tokens: int
    """Of each."""

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or not len(self.ids) or not 1 <= self.prompt_tokens < self.ids.shape[1]:
            raise UsageError(
                f"Texts are one or more rows with something behind {self.prompt_tokens} prompt tokens, not a tensor of "
                f"{tuple(self.ids.shape)}."
            )


def own_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    fingerprint: str,
    count: int,
    skip: int = 0,
    progress: Progress = SILENT,
) -> tuple[Texts, ...]:
    """Return texts the model writes from its own first token, x ~ p_base, sampled at temperature 1.

    They are kept in Strop's cache under the model's fingerprint. Where the tokenizer has a chat template every second
    chunk is a conversation: the model writes the user's turn itself, then its answer. Of unconditional samples the mean
    over tokens of KL(p_base ‖ p_edited) is an unbiased estimate of the distance of the two models (arXiv 2505.13811).

    Args:
        model: as it is before any edit.
        tokenizer: the model's.
        fingerprint: of the model's weights.
        count: of texts; whole chunks are sampled.
        skip: so many texts are left to another use; whole chunks are.
        progress: told of each chunk that is sampled.
    """
    writer = _Writer(model, tokenizer)
    chunks = -(-count // CHUNK_TEXTS)
    first = -(-skip // CHUNK_TEXTS)
    found: list[Texts] = []
    for number in range(first, first + chunks):
        template = writer.template if number % 2 else None
        path = _path_of(writer, fingerprint, number, template)
        kept = _read(path)
        if kept is None:
            progress.note(f"sampling text the model writes itself ({number - first + 1} of {chunks})")
            kept = writer.write(number, template)
            with contextlib.suppress(OSError, SafetensorError), replacing_file(path) as temporary:
                save_file(
                    {"ids": kept.ids.contiguous()}, temporary, metadata={"prompt_tokens": str(kept.prompt_tokens)}
                )
        found.append(kept)
    spare = chunks * CHUNK_TEXTS - count
    if spare:
        found[-1] = Texts(found[-1].ids[:-spare], found[-1].prompt_tokens)
    return tuple(found)


def texts_in(
    text: str, tokenizer: PreTrainedTokenizerBase, *, name: str, count: int, context: int
) -> tuple[Texts, ...]:
    """Return windows of a text a user brings, spread evenly over it.

    Args:
        text: some pages.
        tokenizer: the model's.
        name: what to call it in an error.
        count: most windows.
        context: the model's, in tokens.

    Raises:
        UsageError: the text is too short for one window.
    """
    begins = _first_ids(tokenizer)
    width = max(min(TEXT_TOKENS, context) - len(begins), 2)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    starts = list(range(0, len(ids) - width + 1, width))
    if not starts:
        raise UsageError(f"{name} has {len(ids)} tokens, and windows of {width} are read; give some pages of text.")
    if len(starts) > count:
        starts = [starts[index * len(starts) // count] for index in range(count)]
    rows = torch.tensor([[*begins, *ids[start : start + width]] for start in starts])
    return (Texts(rows, rows.shape[1] // 2),)


class _Writer:
    """A model that writes on its own, with what its texts begin with."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        ends = end_tokens(getattr(model.generation_config, "eos_token_id", None))
        self.banned = sorted({int(one) for one in tokenizer.all_special_ids} | ends)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or TEXT_TOKENS
        self.tokens = min(TEXT_TOKENS, int(context))
        template = self._template() if self.tokens == TEXT_TOKENS else None
        longest = sum(map(len, template)) + TURN_TOKENS + TEXT_TOKENS // 2 if template is not None else 0
        self.template = template if longest <= int(context) else None
        known = vocabulary_of(model)
        if any(token >= known for part in self.template or () for token in part):
            self.template = None  # a base model with the tokenizer of its chat
        taken = {token for part in template or () for token in part}
        first = _first_ids(tokenizer)
        self.first = first if first and max(first) < known else (_any_first_id(model, tokenizer, taken),)

    def _template(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return the tokens before and after a user's turn; None where the tokenizer has no template for one."""
        mark = "\u241e"
        if not self.tokenizer.chat_template:
            return None
        try:
            text = str(
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": mark}],
                    chat_template=FIXED_DATE + str(self.tokenizer.get_chat_template()),
                    tokenize=False,
                    add_generation_prompt=True,
                    date_string=DATE,
                )
            )
        except Exception:  # a template is a program somebody else wrote; without it there is the plain text
            return None
        before, found, after = text.partition(mark)
        if not found:
            return None
        return self._ids(before), self._ids(after)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def write(self, chunk: int, template: tuple[tuple[int, ...], tuple[int, ...]] | None) -> Texts:
        """Sample one chunk of texts; the same chunk is the same again."""
        generator = torch.Generator().manual_seed(chunk)
        if template is None:
            ids = self._go_on(self._rows(self.first), self.tokens - len(self.first), generator)
            return Texts(ids, self.tokens // 2)
        before, after = template
        asked = self._go_on(self._rows(before or self.first), TURN_TOKENS, generator)
        prompts = torch.cat([asked, self._rows(after)], dim=1)
        ids = self._go_on(prompts, TEXT_TOKENS - TEXT_TOKENS // 2, generator)
        return Texts(ids, prompts.shape[1])

    def _rows(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.long).expand(CHUNK_TEXTS, len(ids))

    def _go_on(self, ids: Tensor, tokens: int, generator: torch.Generator) -> Tensor:
        """Return sequences with so many more tokens, sampled one after the other."""
        ids = ids.to(input_device(self.model))
        sampler = LogitsProcessorList([_Sampling(generator, self.banned)])
        with torch.inference_mode(), evaluating(self.model), generating_by(self.model, tokens, pad=self.first[0]):
            written = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), logits_processor=sampler)
        return torch.as_tensor(written).cpu().clone()  # one that gradients may be asked of


class _Sampling(LogitsProcessor):  # type: ignore[misc]
    """Leave of all tokens one that is drawn at temperature 1, by random numbers of the CPU, the same on every device."""

    def __init__(self, generator: torch.Generator, banned: Sequence[int]) -> None:
        self._generator = generator
        self._banned = list(banned)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        logits = scores.detach().float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise UsageError("The base model's predictions are not finite, so that it can write no text of its own.")
        logits[:, [one for one in self._banned if one < logits.shape[1]]] = -torch.inf
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=self._generator).to(input_ids.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def _first_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return what the tokenizer puts before every text."""
    ids = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    before = next((place for place in range(len(ids)) if ids[place : place + len(plain)] == plain), 0)
    return tuple(ids[:before])


def _any_first_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, taken: set[int]) -> int:
    """Return the token a text begins with where the tokenizer puts none before it.

    One that the chat template uses would begin a conversation.
    """
    own = model.config.get_text_config()
    ends = own.eos_token_id if isinstance(own.eos_token_id, (list, tuple)) else [own.eos_token_id]
    named = [tokenizer.bos_token_id, own.bos_token_id, tokenizer.eos_token_id, *ends, tokenizer.unk_token_id]
    known = [int(one) for one in named if one is not None and int(one) < vocabulary_of(model)]
    return next((one for one in known if one not in taken), known[0] if known else 0)


def _path_of(
    writer: _Writer, fingerprint: str, chunk: int, template: tuple[tuple[int, ...], tuple[int, ...]] | None
) -> Path:
    settings = [writer.first, writer.banned, writer.tokens, CHUNK_TEXTS, TURN_TOKENS, chunk, template]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    return cache_folder() / "texts" / f"{fingerprint}-{digest}.safetensors"


def _read(path: Path) -> Texts | None:
    """Return texts that were kept; None where there are none, or what is there is damaged."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            prompt_tokens = int((file.metadata() or {})["prompt_tokens"])
        return Texts(load_file(path)["ids"], prompt_tokens)
    except (SafetensorError, KeyError, ValueError, OSError, UsageError):
        return None
