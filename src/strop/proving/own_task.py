"""A task made of what a base model writes itself, for whoever brings neither a task nor a text."""

import dataclasses
import itertools

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family
from strop.checkpoints import identify
from strop.errors import UsageError
from strop.progress import SILENT, Progress
from strop.proving.assignment import refuse_attached
from strop.scoring import own_texts, writes
from strop.tasks import Example, SplitSettings, Task
from strop.tasks.splits import deal, without_repeats

TEXTS = 128
"""How many it has, half of them in either split."""

SKIPPED = 8192
"""So many of the texts a base writes are left to drift, to what it resists and to what is kept: those are the first ones."""

UNWRITTEN = Task("own-text", "perplexity", {})
"""Stands for it until the model has written."""

REMEDY = "give a task (task, --task), or a text of yours (strop.text_task, --text)"


def own_text_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    family: Family | None = None,
    progress: Progress = SILENT,
) -> Task:
    """Return a task of text a model writes itself, dealt into select and test and judged by the perplexity of what it went on with.

    The texts are sampled at temperature 1, x ~ p, and E log p(x) − E log q(x) = KL(p ‖ q) ≥ 0 for any other model q: on such
    text nothing surpasses its writer but by chance, and what comes nearest changed the least.

    Args:
        model: as it is before any edit.
        tokenizer: the model's.
        family: the spelling of an architecture Strop does not know.
        progress: told of each chunk that is sampled.

    Raises:
        InterventionError: something is attached to the model.
        UsageError: it writes no text, or always the same.
    """
    refuse_attached(model)
    anatomy = Anatomy.of(model, family=family)
    if not writes(model, anatomy):
        raise UsageError(f"{type(model).__name__} writes no text of its own to search by; {REMEDY}.")
    texts = own_texts(
        model, tokenizer, fingerprint=identify(model).fingerprint, count=TEXTS, skip=SKIPPED, progress=progress
    )
    context = anatomy.context(model)
    read = [_read(tokenizer, row, part.prompt_tokens) for part in texts for row in part.ids]
    examples = without_repeats(
        [
            Example(prompt, answer, row=number + 1)
            for number, (prompt, answer) in enumerate(read)
            if answer and len(tokenizer(prompt + answer)["input_ids"]) <= context
        ]
    )
    if len(examples) < 2:
        raise UsageError(f"{type(model).__name__} writes no two texts that tell it from others; {REMEDY}.")
    return dataclasses.replace(UNWRITTEN, splits=deal(examples, SplitSettings(select=0.5, test=0.5)))


def _read(tokenizer: PreTrainedTokenizerBase, ids: Tensor, prompt_tokens: int) -> tuple[str, str]:
    """Return tokens as words, parted where the prompt ends, or before a letter that the border cuts."""
    whole, prompt = str(tokenizer.decode(ids)), str(tokenizer.decode(ids[:prompt_tokens]))
    border = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(whole, prompt, strict=False)))
    return whole[:border], whole[border:]
