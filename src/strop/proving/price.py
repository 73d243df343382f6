"""What a choice costs: how far it is from the base on text that has nothing to do with the task."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, evaluating, input_device
from strop.errors import StropError, reason_in
from strop.progress import SILENT, Progress
from strop.proving.drift import DriftText
from strop.runs import Continuation, Price, Stopwatch
from strop.scoring import DriftScorer, Texts, generating_by
from strop.scoring.own_text import TEXT_TOKENS
from strop.statistics import Drift

CONTINUED, CONTINUATION_TOKENS, SHOWN_CHARACTERS = 3, 20, 60
"""How many texts are shown going on before and after, how far, and how much of what comes before."""
TIMED_TOKENS = 5
"""How far they go on where it is only to be known how long that takes."""


@dataclasses.dataclass(frozen=True)
class Priced:
    """A price, and the tokens that were read to know it."""

    price: Price
    tokens: int = 0


def price_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edited: Callable[[], AbstractContextManager[object]] | None,
    *,
    anatomy: Anatomy,
    lowest: int = 0,
    text: DriftText,
    fingerprint: str | None = None,
    prepared: DriftScorer | Drift | None = None,
    progress: Progress = SILENT,
) -> Priced:
    """Return what edits cost, with a few texts that go on before and after.

    Where it cannot be measured, as of a classifier, the price says why.

    Args:
        model: as it is before any edit.
        tokenizer: the model's.
        edited: puts the edits on the model for a `with` block; None where nothing is edited.
        anatomy: the model's.
        lowest: the lowest layer anything edits.
        text: what drift is measured on.
        fingerprint: of the model's weights, where it is at hand.
        prepared: what has read the same texts of the base already, for a guard, or how far the edits were found to be from it.
        progress: told how far it is.
    """
    writer = _Continuer(model, tokenizer, anatomy)
    try:
        texts = text.texts(model, tokenizer, anatomy=anatomy, fingerprint=fingerprint, progress=progress)
        progress.start("measuring drift from the base", 3)
        read = prepared or DriftScorer(model, texts, anatomy=anatomy, source=text.name, lowest=lowest)
        tokens = 0 if isinstance(read, Drift) else ((prepared is None) + (edited is not None)) * read.tokens
        progress.advance()
        before = after = writer.continuations(texts[0])
        progress.advance()
        if edited is None:
            drift = read if isinstance(read, Drift) else read.read_unedited()
        else:
            with edited():
                drift = read if isinstance(read, Drift) else read.read()
                after = writer.continuations(texts[0])
        progress.advance()
    except StropError as error:
        return Priced(Price(None, reason=str(error)))
    except Exception as error:  # a choice that is made and measured is not lost for want of its price
        return Priced(Price(None, reason=f"Measuring it failed: {type(error).__name__}: {reason_in(error)}."))
    prompts = [writer.last_words(row[: texts[0].prompt_tokens]) for row in texts[0].ids[:CONTINUED]]
    shown = tuple(Continuation(*each) for each in zip(prompts, before, after, strict=True))
    return Priced(Price(drift, shown), tokens)


def seconds_of_continuations(model: PreTrainedModel, anatomy: Anatomy) -> float:
    """Return how long it takes a model to go on with the texts that are shown; 0 where it does not.

    Args:
        model: that writes text.
        anatomy: the model's.
    """
    prompts = torch.zeros((CONTINUED, TEXT_TOKENS // 2), dtype=torch.long)
    times = []
    try:
        for tokens in (1, 1, TIMED_TOKENS):  # once to warm up
            watch = Stopwatch()
            _continued(model, anatomy, prompts, tokens)
            times.append(watch.seconds)
    except Exception:  # its price will say why
        return 0.0
    _, first, some = times
    return first + max(some - first, 0.0) * (CONTINUATION_TOKENS - 1) / (TIMED_TOKENS - 1)


def _continued(model: PreTrainedModel, anatomy: Anatomy, prompts: Tensor, tokens: int) -> Tensor:
    """Return prompts with some tokens more, as far as the model's context reaches."""
    prompts = prompts.to(input_device(model))
    most = min(tokens, anatomy.context(model) - prompts.shape[1])
    with torch.inference_mode(), evaluating(model), generating_by(model, most):
        return torch.as_tensor(model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Continuer:
    """A model that goes on with texts, word by likeliest word."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy

    def continuations(self, texts: Texts) -> list[str]:
        """Return how the first texts' prompts go on."""
        prompts = texts.ids[:CONTINUED, : texts.prompt_tokens]
        written = _continued(self.model, self.anatomy, prompts, CONTINUATION_TOKENS)
        return [self._decoded(row[texts.prompt_tokens :]) for row in written]

    def last_words(self, ids: Tensor) -> str:
        """Return how a prompt ends."""
        text = self._decoded(ids)
        return text if len(text) <= SHOWN_CHARACTERS else "… " + text[-SHOWN_CHARACTERS:].partition(" ")[2]

    def _decoded(self, ids: Tensor) -> str:
        return " ".join(str(self.tokenizer.decode(ids, skip_special_tokens=True)).split())
