"""What a model reads in a run, and how it computes, beside its weights: who goes on with the run must have the same."""

import hashlib
import json
from typing import Any

from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from strop.scoring.chat_template import prompt_of
from strop.scoring.tokens import adds_special_tokens
from strop.tasks import Task
from strop.tasks.splits import SPLITS

MOST_EXAMPLES = 2000
"""Of each split whose tokens are looked at: another template or tokenizer changes more than a few."""

HARMLESS = frozenset(
    {
        "architectures", "auto_map", "dtype", "id2label", "label2id", "name_or_path", "output_attentions",
        "output_hidden_states", "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
    }
)  # fmt: skip
"""What a config says that changes no logits: names, versions, what else is returned; dtypes are the weights' own affair."""

OF_CLASSIFIERS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})
"""What only a classifier computes by, to find where a text ends; trainers set them as the tokenizer has them."""


def what_is_read(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> dict[str, Any]:
    """Return what tells a run's prompts and its model's way to compute from others, as config.json holds it.

    Args:
        model: the base.
        tokenizer: its fast tokenizer, or its image processor.
        task: whose examples are read.
    """
    images = task.shows_images
    return {
        **({"images": _processing_of(task, tokenizer)} if images else {"prompts": _tokens_of(task, tokenizer)}),
        "config": _computing_fields(
            json.loads(model.config.to_json_string()),
            HARMLESS if task.labels is not None else HARMLESS | OF_CLASSIFIERS,
        ),
    }


def _tokens_of(task: Task, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return 32 hexadecimal digits over the token ids of a task's prompts and answers."""
    digest = hashlib.sha256()
    for split in SPLITS:
        examples = task.examples(split, limit=MOST_EXAMPLES) if task.splits.get(split) else ()
        texts = [
            prompt_of(example, tokenizer) + (example.pair or "") + answer + example.after
            for example in examples
            for answer in (example.choices or (example.answer,))
        ]
        encoded = tokenizer(texts, add_special_tokens=adds_special_tokens(examples), verbose=False) if texts else {}
        digest.update(json.dumps([split, encoded.get("input_ids", [])]).encode())
    return digest.hexdigest()[:32]


def _processing_of(task: Task, processor: BaseImageProcessor) -> str:
    """Return 32 hexadecimal digits over a task's images, and over the settings of what turns them into a model's input."""
    settings = _computing_fields(processor.to_dict(), HARMLESS)
    digest = hashlib.sha256(json.dumps([task.fingerprint, settings], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def _computing_fields(config: dict[str, Any], harmless: frozenset[str]) -> dict[str, Any]:
    """Return the fields of a config, those of the parts of a model in it included, that change what is computed."""
    return {
        name: _computing_fields(value, harmless) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in harmless and not name.startswith("_")
    }
