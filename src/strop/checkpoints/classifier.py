"""Load a model with a classification head: one output for each label, or one that is a number; of texts or of images."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.checkpoints.load import IMAGE_CLASSIFIER, as_text, of_images, read_pretrained
from strop.checkpoints.zoo import Announce
from strop.errors import CheckpointError, UsageError
from strop.tasks.pictures import require_pillow

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerFast


def load_classifier(
    name: str | Path,
    *,
    labels: int | Sequence[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    dtype: "torch.dtype | None" = None,
    device: "str | torch.device | None" = None,
    announce: Announce = lambda line: None,
    new_head: bool = True,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Return a model that classifies texts, in evaluation mode, and its tokenizer.

    A head the checkpoint has for as many labels is kept; else one is drawn at random by the seed, and is there to be
    trained (`strop.train`). The model knows its padding token: the tokenizer's own, or its end-of-text token; where texts
    end with that one, and the head would take it for padding, the one they begin with.

    Args:
        name: a name from the zoo (fetched on first use), a local folder, or a hub id.
        labels: their names, or how many there are, 1 for a model that says a number; those the checkpoint has by default.
        seed: of the head.
        revision: of a hub id; its default branch by default.
        dtype: the checkpoint's own by default.
        device: where to put the model; CPU by default.
        announce: called with a line for each step of a first fetch.
        new_head: draw a head where the checkpoint has none for as many labels; False refuses such a checkpoint.

    Raises:
        UsageError: there is no label, or the checkpoint's head has the same labels in another order.
        CheckpointError: there is no such model, its weights are damaged or not all there, or transformers knows no
            classifier of its kind or the tokenizer has no token to pad with that no text ends with.
        PullError: a zoo model could not be fetched.
    """
    name = as_text(name)
    own: dict[str, Any] = {"revision": revision, "dtype": dtype, "announce": announce, "new_head": new_head}
    model, tokenizer = _with_head(name, "AutoModelForSequenceClassification", labels, seed=seed, **own)
    _know_padding(name, model, tokenizer)
    if device is not None:
        model.to(device)
    return model, tokenizer


def load_image_classifier(
    name: str | Path,
    *,
    labels: int | Sequence[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    dtype: "torch.dtype | None" = None,
    device: "str | torch.device | None" = None,
    announce: Announce = lambda line: None,
    new_head: bool = True,
) -> "tuple[PreTrainedModel, BaseImageProcessor]":
    """Return a model that classifies images, in evaluation mode, and the image processor that says how it looks at them.

    A head the checkpoint has for as many labels is kept; else one is drawn at random by the seed, and is there to be
    trained (`strop.train`).

    Args:
        name: a local folder or a hub id of what transformers loads for image classification, such as a Vision Transformer.
        labels: their names, or how many there are; those the checkpoint has by default.
        seed: of a new head.
        revision: of a hub id; its default branch by default.
        dtype: the checkpoint's own by default.
        device: where to put the model; CPU by default.
        announce: called with a line for each step of a first fetch.
        new_head: draw a head where the checkpoint has none for as many labels; False refuses such a checkpoint.

    Raises:
        UsageError: there is no label, the checkpoint's head has the same labels in another order, or Pillow is not installed.
        CheckpointError: there is no such model, its weights are damaged or not all there, it classifies no images, or it has
            no image processor.
    """
    require_pillow()
    name = as_text(name)
    own: dict[str, Any] = {"revision": revision, "dtype": dtype, "announce": announce, "new_head": new_head}
    model, processor = _with_head(name, IMAGE_CLASSIFIER, labels, seed=seed, **own)
    if device is not None:
        model.to(device)
    return model, processor


def _with_head(
    name: str, kind: str, labels: int | Sequence[str] | None, *, seed: int, new_head: bool, **own: Any
) -> tuple[Any, Any]:
    """Return a model with a head for some labels, and what turns its examples into what it reads."""
    count = labels if labels is None or isinstance(labels, int) else len(labels)
    if count is not None and count < 1:
        raise UsageError("A classifier has one label or more; 1 is for a number.")
    import torch

    settings: dict[str, Any] = {} if count is None else {"num_labels": count, "ignore_mismatched_sizes": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, reader, report = read_pretrained(kind, name, **own, **settings)
    _refuse_incomplete(name, model, report, but=head_parameters(model) if count is not None else ())
    if not new_head and _drawn(report) & set(head_parameters(model)):
        raise CheckpointError(
            f"The checkpoint '{name}' has no head for {model.config.num_labels} labels, and edits are found for one that "
            "decides already; give a classifier, or let strop train learn a head."
        )
    if labels is not None and not isinstance(labels, int):
        _name_labels(name, model, tuple(labels), report)
    return model.eval(), reader


def is_classifier(model: "PreTrainedModel") -> bool:
    """Return whether a model says a label or a number of a text or an image, by the name transformers gives such classes."""
    return type(model).__name__.endswith("ForSequenceClassification") or looks_at_images(model)


def looks_at_images(model: "PreTrainedModel") -> bool:
    """Return whether a model classifies images, by the name transformers gives such classes."""
    return of_images(type(model).__name__)


def labels_in_own_order(model: "PreTrainedModel", labels: Sequence[str]) -> tuple[str, ...] | None:
    """Return a classifier's labels in the order of its outputs, where it has those given in another; None otherwise."""
    own = tuple(str(name) for _, name in sorted((model.config.id2label or {}).items()))
    spelled, wanted = ([name.strip().casefold() for name in names] for names in (own, labels))
    return own if spelled != wanted and sorted(spelled) == sorted(wanted) else None


def head_parameters(model: "PreTrainedModel") -> "dict[str, nn.Parameter]":
    """Return by name what a classifier decides with: all that lies outside its base model, and the base's pooler.

    For RoBERTa these are the head softmax(W_o tanh(W_d h₁ + b_d) + b_o) of Wu, Arora et al. (ReFT, arXiv 2404.03592,
    section 4.4); BERT keeps W_d and b_d in its pooler; a decoder's head is W_o of the last token's state.

    Args:
        model: empty for one that is no classifier.
    """
    if not is_classifier(model):
        return {}
    prefix = f"{model.base_model_prefix}."
    if model.base_model is model:  # whose body is no module of its own (CLIP, SigLIP)
        return {name: own for name, own in model.named_parameters() if name.startswith("classifier.")}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(prefix) or name.startswith(f"{prefix}pooler.")
    }


def _refuse_incomplete(
    name: str, model: "PreTrainedModel", report: Mapping[str, Collection[Any]], *, but: Collection[str]
) -> None:
    others = sorted({str(key) for key in report["missing_keys"]} - set(but))
    others += sorted({str(entry[0]) for entry in report["mismatched_keys"]} - set(but))
    if others:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        beside = " beside its head" if but else ""
        raise CheckpointError(
            f"The checkpoint '{name}' lacks {len(others)} of {type(model).__name__}'s weights{beside} ({shown}): it is "
            "incomplete, or was saved from another kind of model."
        )


def _drawn(report: Mapping[str, Collection[Any]]) -> set[str]:
    """Return the weights that the checkpoint does not have, or has of another shape."""
    return {*map(str, report["missing_keys"]), *(str(entry[0]) for entry in report["mismatched_keys"])}


def _name_labels(
    name: str, model: "PreTrainedModel", labels: tuple[str, ...], report: Mapping[str, Collection[Any]]
) -> None:
    own = labels_in_own_order(model, labels)
    if own is not None and not _drawn(report) & set(head_parameters(model)):
        raise UsageError(f"The head of '{name}' has its labels in another order: give them as {', '.join(own)}.")
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}


def _know_padding(name: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast") -> None:
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is not None and _last_of_a_text(tokenizer) == config.pad_token_id:
        if tokenizer.bos_token_id in (None, config.pad_token_id):
            raise CheckpointError(
                f"The tokenizer of '{name}' ends texts with {tokenizer.decode([config.pad_token_id])!r} and pads with it, and "
                "a classifier cannot tell the two apart; give it a padding token of its own and save it."
            )
        tokenizer.pad_token = tokenizer.bos_token
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise CheckpointError(
            f"The tokenizer of '{name}' has neither a padding nor an end-of-text token, and a classifier tells texts of a "
            "batch apart by one; add one with tokenizer.add_special_tokens and save it."
        )


def _last_of_a_text(tokenizer: "PreTrainedTokenizerFast") -> int | None:
    ids = tokenizer("a")["input_ids"]
    return int(ids[-1]) if ids else None
