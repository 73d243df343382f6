"""Greedy generation from prompts, in left-padded batches of like length, and what is read out of it."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from strop.anatomy import evaluating, input_device
from strop.errors import TaskError
from strop.progress import SILENT, Progress
from strop.scoring.chat_template import asked_of
from strop.scoring.encoding import encode, vocabulary_of
from strop.scoring.finite import FiniteLogits
from strop.scoring.forms import CAUSAL, Form, PairedForm
from strop.scoring.place import place_of
from strop.scoring.resources import Resources
from strop.scoring.seams import refuse_unlike, seams_of, tokens_before_answers
from strop.tasks.examples import Example, gold_of
from strop.tasks.extraction import extract, is_right, spelled_alike, until_stop
from strop.tasks.few_shot import stops_of_shots
from strop.tasks.task_file import GenerateSettings


@dataclasses.dataclass(frozen=True)
class Generated:
    """What a model wrote after each prompt, and what was read out of it."""

    texts: tuple[str, ...]
    """Up to the end of text or the first stop string."""
    extracted: tuple[str | None, ...]
    """None where the pattern found nothing."""
    correct: NDArray[np.bool_]
    """(examples,): whether what was extracted matches the gold."""
    said: tuple[str | None, ...]
    """What was extracted, spelled so that what matches the same gold by its number is the same text."""
    wanted: tuple[str, ...]
    """The gold answers, spelled as `said` is."""


class Generator:
    """Prompts encoded once, ready to be answered by a model as often as its weights change.

    Args:
        model: a causal language model, or an encoder-decoder.
        tokenizer: its fast tokenizer.
        examples: whose prompts are answered, in this order.
        settings: how long, and how an answer is read out of what is written.
        longest: the model's context in tokens.
        form: how the model reads them; a prompt that stands in an encoder is padded on its right, as where it is scored.

    Raises:
        TaskError: a prompt and all new tokens do not fit the context, an example has no gold, letters of a prompt melt into
            its answer, or a stop string holds a special token amid other text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        settings: GenerateSettings,
        *,
        longest: int,
        form: Form = CAUSAL,
    ) -> None:
        settings = settings.model_copy(update={"stop": (*settings.stop, *stops_of_shots(examples))})
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self._examples = examples
        self._golds = [gold_of(example, settings, where=place_of(example)) for example in examples]
        self._stop_tokens = _special_among(settings.stop, tokenizer)
        self._prompts = _prompt_ids(examples, tokenizer, vocabulary=vocabulary_of(model), form=form)
        self._begun_by_decoder = form.begun(tokenizer) if isinstance(form, PairedForm) else ()
        seams = {} if self._begun_by_decoder else seams_of(examples, self._prompts, tokenizer)
        refuse_unlike(seams, stops=settings.stop)
        self._begun = [
            (seams[index].rest or "" if index in seams else "") + asked_of(example, tokenizer).lead
            for index, example in enumerate(examples)
        ]
        for example, ids in zip(examples, self._prompts, strict=True):
            refuse_too_long(example, len(ids), settings, longest=longest)
        self.batches = _batches(self._prompts, settings.max_new_tokens, limit=Resources.of(model).generated_tokens)

    @property
    def tokens(self) -> int:
        """Tokens of one whole pass at most, padding included: every row may write all its new tokens."""
        return sum(
            len(batch) * (max(len(self._prompts[index]) for index in batch) + self.settings.max_new_tokens)
            for batch in self.batches
        )

    @torch.inference_mode()
    def generate(self, *, progress: Progress = SILENT) -> Generated:
        """Let the model answer every prompt greedily, whatever its own generation settings say.

        Args:
            progress: told of each batch.

        Raises:
            NotFiniteError: the model's predictions are NaN or infinite.
        """
        texts = [""] * len(self._prompts)
        with evaluating(self.model), _greedy(self.model, self.tokenizer, self.settings, self._stop_tokens) as config:
            for batch in self.batches:
                for index, text in zip(batch, self._write(batch, config), strict=True):
                    texts[index] = until_stop(text.removeprefix(self._begun[index]), self.settings)
                progress.advance()
        extracted = tuple(extract(text, self.settings) for text in texts)
        right = [is_right(own, gold, self.settings) for own, gold in zip(extracted, self._golds, strict=True)]
        return Generated(
            tuple(texts),
            extracted,
            np.array(right, dtype=bool),
            said=tuple(None if own is None else spelled_alike(own, self.settings) for own in extracted),
            wanted=tuple(spelled_alike(gold, self.settings) for gold in self._golds),
        )

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, padding left out."""
        return sum(map(len, self._prompts))

    def _write(self, members: Sequence[int], config: GenerationConfig) -> list[str]:
        prompts = [self._prompts[index] for index in members]
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), config.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            where = slice(0, len(prompt)) if self._begun_by_decoder else slice(width - len(prompt), width)
            ids[row, where] = torch.tensor(prompt)
            mask[row, where] = 1
        before = len(self._begun_by_decoder) or width  # what is returned before the answer
        device, stops = input_device(self.model), self.settings.stop
        written = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            **_begun(self._begun_by_decoder, len(prompts), device),
            logits_processor=LogitsProcessorList(
                [FiniteLogits(self.model, [self._examples[index] for index in members])]
            ),
            stopping_criteria=StoppingCriteriaList([_meets(stops, self.tokenizer, before)] if stops else []),
        )
        ends = set(config.eos_token_id or ())
        return [self._text(row, ends) for row in written[:, before:].tolist()]

    def _text(self, ids: Sequence[int], ends: set[int]) -> str:
        last = next((position for position, token in enumerate(ids) if token in ends), len(ids))
        return _decoded(self.tokenizer, ids[:last])


def _meets(
    stops: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_tokens: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a stopping criterion: a row ends once its newest tokens hold a stop string.

    Transformers' own `stop_strings` prepares the whole vocabulary, for every model anew.
    """
    reach = max(len(stop.encode()) for stop in stops) + 2  # what the newest token completes began within as many tokens

    def met(input_ids: Tensor, _scores: Tensor) -> Tensor:
        newest = input_ids[:, max(prompt_tokens, input_ids.shape[1] - reach) :].tolist()
        texts = [_decoded(tokenizer, ids) for ids in newest]
        return torch.tensor([any(stop in text for stop in stops) for text in texts], device=input_ids.device)

    return met


def _special_among(stops: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the stop strings that are special tokens, which no text shows: what is written ends at the token itself.

    Raises:
        TaskError: one holds a special token amid other text.
    """
    special = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for stop in stops:
        held = next((token for token in special if token in stop and token != stop), None)
        if held is not None and stop not in special:
            raise TaskError(
                f"generate.stop: {stop!r} holds the special token {held!r} amid other text, which no text shows; write {held!r}."
            )
    return {special[stop] for stop in stops if stop in special}


@contextlib.contextmanager
def _greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: GenerateSettings, stop_tokens: set[int]
) -> Iterator[GenerationConfig]:
    """Let a model decode greedily to an end of text for the length of a block."""
    ends = end_tokens(model.generation_config.eos_token_id) | end_tokens(tokenizer.eos_token_id) | stop_tokens
    named = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    pad = next((token for token in named if token is not None and token < vocabulary_of(model)), 0)
    with generating_by(model, settings.max_new_tokens, ends=sorted(ends), pad=pad) as config:
        yield config


@contextlib.contextmanager
def generating_by(
    model: PreTrainedModel, new_tokens: int, *, ends: Sequence[int] = (), pad: int = 0
) -> Iterator[GenerationConfig]:
    """Let a model take the likeliest token after the other for the length of a block, without penalties of its own.

    Args:
        model: a causal language model.
        new_tokens: most of them.
        ends: tokens that end a text; without any every text has all its new tokens.
        pad: what stands behind the end of a text.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=list(ends) or None,
        pad_token_id=pad,
        decoder_start_token_id=getattr(own, "decoder_start_token_id", None),  # of an encoder-decoder
    )
    try:
        yield model.generation_config
    finally:
        model.generation_config = own


def end_tokens(eos: int | list[int] | None) -> set[int]:
    """Return the tokens a text may end with, as a generation config names one, several or none."""
    return set() if eos is None else {eos} if isinstance(eos, int) else set(eos)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return cast(str, tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _prompt_ids(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary: int | None = None,
    form: Form = CAUSAL,
) -> list[tuple[int, ...]]:
    """Return the tokens each prompt has before its answer: those that the answer is scored and learned behind."""
    found = encode(examples, tokenizer, "generate", longest=sys.maxsize, vocabulary=vocabulary, form=form)
    return tokens_before_answers(found)


def _begun(ids: Sequence[int], rows: int, device: torch.device) -> dict[str, Tensor]:
    """Return what `generate` is told that a decoder has read already; nothing where there is none beside an encoder."""
    return {"decoder_input_ids": torch.tensor([list(ids)] * rows, device=device)} if ids else {}


def _batches(prompts: Sequence[tuple[int, ...]], new_tokens: int, *, limit: int) -> list[list[int]]:
    """Group prompts of like length, shortest first, by index."""
    groups: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index)):
        if not groups or (len(groups[-1]) + 1) * (len(prompts[index]) + new_tokens) > limit:
            groups.append([])
        groups[-1].append(index)
    return groups


def refuse_too_long(example: Example, prompt_tokens: int, settings: GenerateSettings, *, longest: int) -> None:
    """Raise TaskError if a prompt and all that may be written after it do not fit the context.

    Args:
        example: whose prompt it is.
        prompt_tokens: how many it has.
        settings: of the generation.
        longest: the model's context in tokens.
    """
    if prompt_tokens + settings.max_new_tokens > longest:
        raise TaskError(
            f"{place_of(example)}: {prompt_tokens} tokens of prompt and {settings.max_new_tokens} new ones "
            f"(generate.max_new_tokens) do not fit the model's context of {longest}; lower one or shorten the row."
        )


def greedy_continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, tokens: int = 5
) -> list[str]:
    """Return what the model writes after each example's prompt, greedily, whatever its own generation settings say.

    Args:
        model: a causal language model, or an encoder-decoder.
        tokenizer: its tokenizer.
        examples: whose prompts are continued.
        tokens: how many new tokens.
    """
    written = []
    ends = sorted(end_tokens(model.generation_config.eos_token_id))
    with evaluating(model), torch.inference_mode(), generating_by(model, tokens, ends=ends):
        form = PairedForm.of(model) if model.config.is_encoder_decoder else CAUSAL
        begun = form.begun(tokenizer) if isinstance(form, PairedForm) else ()
        for ids in _prompt_ids(examples, tokenizer, vocabulary=vocabulary_of(model), form=form):
            prompt = torch.tensor([ids], device=input_device(model))
            generated = model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), **_begun(begun, 1, prompt.device)
            )
            written.append(_decoded(tokenizer, generated[0, len(begun) or len(ids) :].tolist()))
    return written
