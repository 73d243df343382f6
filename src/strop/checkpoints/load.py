"""Load a model and its tokenizer by name, folder or hub id."""

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from strop.checkpoints.quiet import quiet_transformers
from strop.checkpoints.zoo import ZOO, Announce, pull
from strop.errors import CheckpointError, reason_in, shortened

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

IMAGE_CLASSIFIER = "AutoModelForImageClassification"
"""Which of transformers' classes loads what looks at images; an image processor stands in the place of a tokenizer."""
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

_MERGE = "merge it first, by merge_and_unload() of PEFT, save the model that returns, and load that folder"
"""What to do about an adapter."""

_ONE_AT_A_TIME = threading.Lock()
"""Held while a model is read: transformers takes methods off its classes meanwhile, and of two threads the second would leave
them off."""


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: "torch.dtype | None" = None,
    device: "str | torch.device | None" = None,
    announce: Announce = lambda line: None,
    headless: bool = False,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """Return a language model, in evaluation mode, and its tokenizer.

    It is a causal one, which predicts the next token; an encoder-decoder, where the checkpoint's config says so; or an encoder
    that fills masks, where it names `RobertaForMaskedLM` or the like or its architecture has no other language model.

    Args:
        name: a name from the zoo (fetched on first use), a local folder, or a hub id.
        revision: of a hub id; its default branch by default.
        dtype: the checkpoint's own by default.
        device: where to put the model; CPU by default.
        announce: called with a line for each step of a first fetch.
        headless: take a checkpoint that holds a body without a head as it is: enough to look at its matrices.

    Raises:
        CheckpointError: there is no such model, its weights are damaged or not all there, or it is not a
            language model with a fast tokenizer.
        PullError: a zoo model could not be fetched.
    """
    name = as_text(name)
    model, tokenizer, report = read_pretrained(
        None, name, revision=revision, dtype=dtype, announce=announce, headless=headless
    )
    _refuse_incomplete(name, model, report)
    model.eval()
    if device is not None:
        model.to(device)
    return model, tokenizer


def read_pretrained(
    kind: str | None,
    name: str,
    *,
    revision: str | None,
    dtype: "torch.dtype | None",
    announce: Announce,
    headless: bool = False,
    **settings: Any,
) -> "tuple[PreTrainedModel, Any, Mapping[str, Collection[Any]]]":
    """Return a model, its tokenizer or image processor, and transformers' report of the weights that were not there.

    Args:
        kind: which of transformers' classes loads it, by name; None for a language model of the kind the checkpoint is.
        name: a name from the zoo, a local folder, or a hub id.
        revision: of a hub id.
        dtype: the checkpoint's own where it is None.
        announce: called with a line for each step of a first fetch.
        headless: take a checkpoint that holds a body without a head as it is.
        settings: what its `from_pretrained` takes besides.

    Raises:
        CheckpointError: there is no such model, it cannot be read without running code or a pickle that lie beside it, it
            holds an adapter, looks at images where text is read or the other way round, has no image processor, or its
            tokenizer is not a fast one.
        PullError: a zoo model could not be fetched.
    """
    folder = str(pull(name, announce=announce)) if name in ZOO and not _there(Path(name).is_dir) else name
    _refuse_no_model(folder)
    import transformers

    own = {"revision": revision, "trust_remote_code": False}
    try:
        with _ONE_AT_A_TIME, quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(folder, **own)
            _refuse_other_inputs(name, config, images=kind == IMAGE_CLASSIFIER)
            chosen = kind or ("AutoModel" if headless and _is_body(config) else _language_model_of(config))
            model, report = getattr(transformers, chosen).from_pretrained(
                folder, dtype=dtype or "auto", output_loading_info=True, use_safetensors=True, **own, **settings
            )
            reader = "AutoImageProcessor" if kind == IMAGE_CLASSIFIER else "AutoTokenizer"
            tokenizer = getattr(transformers, reader).from_pretrained(folder, **own)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a strange or a damaged checkpoint makes of transformers
        if kind == IMAGE_CLASSIFIER and _lacks_processor(Path(folder)):
            raise CheckpointError(
                f"The model '{name}' has no preprocessor_config.json, which says how images become what it looks at; save its "
                "image processor beside it."
            ) from None
        raise CheckpointError(f"The model '{name}' cannot be loaded: {_reason(error)}.") from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise CheckpointError(f"The model '{name}' brings an adapter along: {_MERGE}.")
    if kind != IMAGE_CLASSIFIER and not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"The tokenizer of '{name}' is not a fast one, and only these say which token covers which characters; "
            "save it once with AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    return model, tokenizer, report


def saved_classifier(name: str | Path, *, revision: str | None = None) -> Literal["texts", "images"] | None:
    """Return what a checkpoint classifies, by the class its config names; None where it is no classifier, or none is there.

    Args:
        name: a name from the zoo, a local folder, or a hub id.
        revision: of a hub id.
    """
    import transformers

    if as_text(name) in ZOO:
        return None
    own = {"revision": revision, "trust_remote_code": False}
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(as_text(name), **own)
    except Exception:  # whoever loads it says what is wrong
        return None
    named = [str(own) for own in config.architectures or ()]
    if any(map(of_images, named)):
        return "images"
    return "texts" if any(own.endswith("ForSequenceClassification") for own in named) else None


def of_images(architecture: str) -> bool:
    """Return whether a class of transformers classifies images, by its name."""
    return "ForImageClassification" in architecture


def _refuse_other_inputs(name: str, config: "PretrainedConfig", *, images: bool) -> None:
    """Raise CheckpointError if a checkpoint is to look at images and reads text, or the other way round."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    named = ", ".join(map(str, config.architectures or ())) or type(config).__name__
    if images and type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise CheckpointError(
            f"The model '{name}' ({named}) classifies no images, and the task's examples are images; name one that does, such "
            "as a ViTForImageClassification."
        )
    if not images and of_images(named):
        raise CheckpointError(
            f"The model '{name}' ({named}) looks at images and reads no text; give the task file image:, the column that holds "
            "one, or load the model with strop.load_image_classifier."
        )


def _lacks_processor(folder: Path) -> bool:
    return folder.is_dir() and not any((folder / name).is_file() for name in PROCESSOR_FILES)


def _language_model_of(config: "PretrainedConfig") -> str:
    """Return which of transformers' classes loads a checkpoint as the language model it is."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if config.is_encoder_decoder:
        return "AutoModelForSeq2SeqLM"
    named = any(str(name).endswith("ForMaskedLM") for name in config.architectures or ())
    fills = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if fills and (named or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING):
        return "AutoModelForMaskedLM"
    return "AutoModelForCausalLM"


def _is_body(config: "PretrainedConfig") -> bool:
    """Return whether a checkpoint says that it was saved without a head."""
    named = config.architectures or ()
    return bool(named) and all(str(name).endswith("Model") for name in named)


def as_text(name: str | Path) -> str:
    """Return a model's name as text, with a home folder in the place of `~` where there is a model."""
    text = str(name)
    with contextlib.suppress(RuntimeError):  # nobody of that name lives here
        if text.startswith("~") and Path(text).expanduser().exists():
            return str(Path(text).expanduser())
    return text


def _refuse_no_model(name: str) -> None:
    path = Path(name)
    if name and _there(path.is_dir):
        _refuse_folder(path)
        return
    looks_like_path = name.startswith((".", "/", "~")) or (os.sep in name.strip("/") and name.count("/") != 1)
    if _there(path.is_file) or looks_like_path or not name:
        what = "is a file" if _there(path.is_file) else "is not there"
        raise CheckpointError(
            f"The model folder '{shortened(name, most=200)}' {what}; give a folder with a config.json, a hub id, or {_zoo()}."
        )
    if "/" not in name:
        raise CheckpointError(
            f"There is no model '{shortened(name, most=200)}': it is neither a folder here nor a zoo name ({_zoo()})."
        )


def _there(asked: Callable[[], bool]) -> bool:
    """Return what a path says of itself; that there is nothing where it is no path, for it is too long for one."""
    try:
        return asked()
    except (OSError, ValueError):
        return False


def _refuse_folder(folder: Path) -> None:
    """Raise CheckpointError if a folder is no saved model, or one that would be read otherwise than it seems."""
    if (folder / "adapter_config.json").is_file():
        beside = "beside whole weights, and would be applied to them" if (folder / "config.json").is_file() else "alone"
        raise CheckpointError(
            f"The folder {folder} holds an adapter (adapter_config.json) {beside}: {_MERGE}, or move the adapter's files away."
        )
    made = folder if (folder / "recipe.json").is_file() else folder / "recipe"
    if (made / "recipe.json").is_file():
        what = "a recipe" if made == folder else "a run"
        raise CheckpointError(
            f"The folder {folder} holds {what}, and no model; name the base model, and give the recipe by --recipe {made}."
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"The folder {folder} holds no config.json, so it is not a saved model.")
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickled and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"The weights in {folder} are pickled ({pickled[0]}), and a pickle may run any code, so none is read; if you trust "
            "it, load it once with transformers and save it by save_pretrained, which writes safetensors."
        )


def _reason(error: Exception) -> str:
    """Return why transformers could not load a model, as a part of a sentence."""
    if "trust_remote_code" in str(error):
        return (
            "it brings Python code of its own, which Strop never runs; take a model of an architecture that transformers knows "
            "by itself"
        )
    return reason_in(error)


def _refuse_incomplete(name: str, model: "PreTrainedModel", report: Mapping[str, Collection[str]]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would go on with random numbers in their place
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        if _is_body(model.config):
            raise CheckpointError(
                f"The checkpoint '{name}' holds a {model.config.architectures[0]} without a head; strop inspect shows its "
                "matrices, and strop train gives it a classifier's head for a task with score: label."
            )
        raise CheckpointError(
            f"The checkpoint '{name}' lacks {len(missing)} of {type(model).__name__}'s weights ({shown}): it is incomplete, "
            "or was saved from another kind of model."
        )


def _zoo() -> str:
    return "one of " + ", ".join(sorted(ZOO)) if len(ZOO) > 1 else next(iter(ZOO))
