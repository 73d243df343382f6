"""Make a recipe permanent: an ordinary checkpoint any other tool can load."""

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import COMPUTED, Anatomy, Family, storage_of
from strop.checkpoints import best_device, fetched, of_images, open_as_saved, open_model, own_parameters
from strop.checkpoints.quiet import quiet_transformers
from strop.errors import InterventionError, StropWarning, reason_in
from strop.export.biases import refuse_unbakeable, room_for_biases, under_config
from strop.export.origin import write_origin
from strop.files import making_folder, refuse_occupied
from strop.interventions import attachments_of
from strop.recipe.apply import applied, refuse_no_recipe
from strop.recipe.document import Recipe

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase


def bake(
    model: PreTrainedModel | str | Path,
    recipe: Recipe,
    folder: str | Path,
    *,
    tokenizer: "PreTrainedTokenizerBase | BaseImageProcessor | None" = None,
    force: bool = False,
    family: Family | None = None,
) -> Path:
    """Write a checkpoint with a recipe's edits in its weights; the model in memory is left as it was.

    The folder appears whole or not at all. It holds the model as `save_pretrained` writes it (safetensors), the
    tokenizer or image processor where one is given, a model card, and the recipe as `strop_recipe.json` for those who ask
    how it was made. Where a pruning leaves a mean bias in a module that has none, the checkpoint's config asks for biases,
    and those the recipe does not speak of are zeros.

    Args:
        model: the base the recipe was made for, with nothing attached; or its name or folder, and its tokenizer comes with it.
        recipe: what to bake in.
        folder: must not hold anything yet.
        tokenizer: saved beside the model; of a model that looks at images, its image processor.
        force: bake although the model is another one.
        family: the spelling of an architecture Strop does not know.

    Raises:
        UsageError: the folder is there already and is not empty, or `recipe` is none.
        BaseMismatchError: the model is not the recipe's base, and `force` is not given.
        RecipeError: factors the recipe carries are not those of the model's matrices, and `force` is not given.
        InterventionError: something is attached to the model already, there is an adapter in it, a checkpoint cannot hold
            one of the recipe's biases, a weight is not made of finite numbers, or transformers refuses to save the model.

    Warns:
        StropWarning: the model is the base in a narrower dtype than the recipe was made for.
    """
    refuse_no_recipe(recipe)
    refuse_unbakeable(recipe)
    refuse_occupied(Path(folder), remedy="choose another folder or remove this one")
    if isinstance(model, (str, Path)):
        model, own = _opened(model, recipe)
        tokenizer = tokenizer if tokenizer is not None else own
    if attachments_of(model):
        raise InterventionError("Something is attached to this model already; detach it before baking a recipe.")
    refuse_adapter(model)
    _refuse_unsaveable(model)
    note = recipe.check(model, family=family) if not force else None
    if note is not None:
        warnings.warn(note, StropWarning, stacklevel=2)
    config, zeros = room_for_biases(model, Anatomy.of(model, family=family), recipe)
    path = Path(folder)
    with (
        making_folder(path) as temporary,
        applied(model, recipe, force=True, family=family),
        under_config(model, config),
        quiet_transformers(),
    ):
        state = {**zeros, **_stored_by(model)}
        _refuse_strange_numbers(model, state)
        try:
            type(model).save_pretrained(model, temporary, state_dict=state)  # edited as it is
        except ValueError as error:  # what transformers finds wrong with a configuration
            raise InterventionError(f"transformers refuses to save this model: {reason_in(error)}.") from error
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        write_origin(temporary, recipe, form="checkpoint")
    return path


def _opened(name: str | Path, recipe: Recipe) -> tuple[PreTrainedModel, "PreTrainedTokenizerBase | BaseImageProcessor"]:
    """Load the base by name: with the labels of the recipe's head where it has one, else as the checkpoint was saved."""
    if recipe.head is None:
        model, own = open_as_saved(name, device=best_device())
        return model, own
    return open_model(name, labels=recipe.head.labels or 1, images=of_images(recipe.base.architecture))


def refuse_adapter(model: PreTrainedModel) -> None:
    """Raise InterventionError if PEFT has put an adapter into a model, for only one of it and a recipe would be written.

    Args:
        model: the base of what is to be written.
    """
    tuners = sys.modules.get("peft.tuners.tuners_utils")  # where it was never imported there is no adapter
    layer = getattr(tuners, "BaseTunerLayer", None)
    inside = layer is not None and any(isinstance(module, layer) for module in model.modules())
    if inside or getattr(model, "_hf_peft_config_loaded", False):
        raise InterventionError(
            "There is an adapter of PEFT in this model, and only one of it and the recipe would be written: merge the adapter "
            "first, by merge_and_unload(), and make the recipe of the model that returns."
        )


def _refuse_unsaveable(model: PreTrainedModel) -> None:
    """Raise InterventionError if a model's weights are not such as a checkpoint holds, whatever is baked into it."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_serializable():
        method = quantizer.quantization_config.quant_method
        raise InterventionError(
            f"This model is quantised ({getattr(method, 'value', method)}) in a way that transformers cannot save; load it "
            "dequantised, as GgufConfig(dequantize=True) does, and bake that."
        )
    for name, module in model.named_modules():
        stored = storage_of(model, module, "weight")
        if stored is not None and stored.kind == COMPUTED:
            raise InterventionError(stored.refusal(f"{name}.weight"))


def _stored_by(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a model's state; what accelerate has offloaded is fetched, unless transformers does so shard by shard."""
    fetches = hasattr(model, "hf_device_map")
    return {name: own if fetches else fetched(model, name, own) for name, own in model.state_dict().items()}


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is made of numbers that are here and can be looked at."""
    return type(tensor) is Tensor and tensor.is_floating_point() and not tensor.is_meta


def _refuse_strange_numbers(model: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Raise InterventionError if what is to be written is not made of finite numbers."""
    for name, tensor in state.items():
        if not _is_plain(tensor) or bool(torch.isfinite(tensor.float()).all()):
            continue
        own = dict(own_parameters(model)).get(name)
        already = own is not None and not bool(torch.isfinite(own.float()).all())
        why = (
            "so does the base's own: load a sound one"
            if already
            else "the recipe makes it so: make it anew, in float32"
        )
        raise InterventionError(f"{name} holds NaN or infinity, and nothing was written; {why}.")
