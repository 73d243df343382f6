"""A recipe as an ordinary LoRA adapter of PEFT's."""

import collections
import contextlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from strop.anatomy import Anatomy, Family, WeightSite
from strop.checkpoints import open_model
from strop.errors import InterventionError, StropWarning
from strop.export.bake import refuse_adapter
from strop.export.origin import write_origin
from strop.files import making_folder, refuse_occupied, write_json
from strop.interventions import ChangesByFactors, FactoredChange, applied_interventions, attachments_of
from strop.linalg import DecompositionCache
from strop.recipe.apply import refuse_no_recipe
from strop.recipe.document import Recipe
from strop.recipe.files import on_its_own

_INSTEAD = "bake the recipe instead (strop bake)"


def export_peft(
    model: PreTrainedModel | str | Path,
    recipe: Recipe,
    folder: str | Path,
    *,
    force: bool = False,
    family: Family | None = None,
) -> Path:
    """Write a recipe as a LoRA adapter that PEFT loads: the model it makes of the base is the recipe's.

    The folder appears whole or not at all. It holds `adapter_config.json` and `adapter_model.safetensors`, a model card, and the
    recipe as `strop_recipe.json` for those who ask how it was made. `PeftModel.from_pretrained(model, folder)` loads it; PEFT
    itself is not needed to write it. A classifier's head becomes one of the adapter's `modules_to_save`.

    A matrix that is a part of a larger one, such as the queries of a fused matrix or a head, gets an update of the larger one that
    is zero everywhere else; several of one module stand side by side, their ranks added.

    Args:
        model: the base the recipe was made for, with nothing attached; or its name or folder.
        recipe: of LoRAs, or of other edits whose change of a matrix is of low rank: prunings of few components, and scalings
            of a few of the largest.
        folder: must not hold anything yet.
        force: export although the model is another one.
        family: the spelling of an architecture Strop does not know.

    Returns:
        The folder.

    Raises:
        UsageError: the folder is there already and is not empty, or `recipe` is none.
        BaseMismatchError: the model is not the recipe's base, and `force` is not given.
        RecipeError: factors the recipe carries are not those of the model's matrices, and `force` is not given.
        InterventionError: an adapter cannot hold the recipe, or something is attached to the model already.

    Warns:
        StropWarning: the model is the base in a narrower dtype than the recipe was made for.
    """
    refuse_no_recipe(recipe)
    refuse_unadaptable(recipe)
    refuse_occupied(Path(folder), remedy="choose another folder or remove this one")
    if isinstance(model, (str, Path)):
        model, _ = open_model(model, labels=recipe.head.labels or 1 if recipe.head is not None else None)
    if attachments_of(model):
        raise InterventionError("Something is attached to this model already; detach it before exporting a recipe.")
    refuse_adapter(model)
    note = recipe.check(model, family=family) if not force else None
    if note is not None:
        warnings.warn(note, StropWarning, stacklevel=2)
    if recipe.head is not None:
        recipe.head.check(model)
    anatomy = Anatomy.of(model, family=family)
    changes = _changes_of_modules(model, anatomy, recipe)
    head = {**recipe.head.tensors} if recipe.head is not None else {}
    tensors = {f"{path}.lora_A.weight": change.right for path, change in changes.items()}
    tensors |= {f"{path}.lora_B.weight": change.left for path, change in changes.items()}
    with making_folder(Path(folder)) as temporary:
        write_json(temporary / "adapter_config.json", _config(model, recipe, changes, list(head)))
        save_file(
            {f"base_model.model.{name}": on_its_own(own) for name, own in {**tensors, **head}.items()},
            temporary / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        write_origin(temporary, recipe, form="adapter")
    return Path(folder)


def refuse_unadaptable(recipe: Recipe) -> None:
    """Raise InterventionError if a recipe holds what no adapter of PEFT's can, whatever the model.

    Args:
        recipe: what is to be exported.
    """
    if not recipe.interventions:
        raise InterventionError("This recipe edits nothing, and an adapter of nothing is none; use the base as it is.")
    for entry, tensors in zip(recipe.interventions, recipe.tensors, strict=True):
        if entry.kind == "state":
            raise InterventionError(
                f"{entry.site}: an adapter of PEFT's changes weights alone, and {entry.method} edits hidden states; keep the "
                "recipe and apply it."
            )
        if entry.output_shift(tensors) is not None:
            raise InterventionError(
                f"{entry.site}: an adapter of PEFT's holds no bias, and {entry.method} adds one; {_INSTEAD}."
            )
        if not isinstance(entry, ChangesByFactors):
            raise _no_low_rank(entry.site, entry.method)


def _no_low_rank(site: WeightSite, method: str) -> InterventionError:
    return InterventionError(
        f"{site}: what {method} changes is of no low rank, and an adapter would be no smaller than the matrix; {_INSTEAD}."
    )


def _changes_of_modules(model: PreTrainedModel, anatomy: Anatomy, recipe: Recipe) -> dict[str, FactoredChange]:
    """Return what the recipe changes of each module's whole matrix, (out, in), by the module's name."""
    found: dict[str, FactoredChange] = {}
    decompose = DecompositionCache().decompose
    with contextlib.ExitStack() as stack, torch.no_grad():
        for index, (entry, tensors) in enumerate(zip(recipe.interventions, recipe.tensors, strict=True)):
            assert entry.kind == "weight"  # others are refused before
            matrix = anatomy.read_weight(model, entry.site)
            entry.check(tensors, (matrix.shape[0], matrix.shape[1]))
            change = None
            if isinstance(entry, ChangesByFactors):
                change = entry.factored_change(matrix, decompose=decompose, tensors=tensors)
            if change is None:
                raise _no_low_rank(entry.site, entry.method)
            path, whole = anatomy.module_path(entry.site), _of_whole(change, model, anatomy, entry.site)
            found[path] = found[path] + whole if path in found else whole
            later = (other.site for other in recipe.interventions[index + 1 :] if other.kind == "weight")
            if any(entry.site.overlaps(site) for site in later):
                stack.enter_context(applied_interventions(model, [entry], anatomy=anatomy, tensors=[tensors]))
    return found


def _of_whole(change: FactoredChange, model: PreTrainedModel, anatomy: Anatomy, site: WeightSite) -> FactoredChange:
    """Return a change of a site's matrix as one of all that its module holds: zero rows and columns around it.

    Raises:
        InterventionError: PEFT has no LoRA of such a module.
    """
    module, spelling = anatomy.module(model, site), anatomy.spelling(site)
    if not spelling.is_tappable or not isinstance(module, nn.Linear | Conv1D):
        raise InterventionError(
            f"{site}: {anatomy.module_path(site)} is no linear module that the block calls, and PEFT's LoRA is of these; "
            f"{_INSTEAD}."
        )
    weight = anatomy.parameter(model, site)
    count, features = anatomy.output_features(weight, site)
    inputs = weight.numel() // count
    columns = anatomy.inputs_in(torch.arange(inputs), site)
    left, right = change.left.new_zeros(count, change.rank), change.right.new_zeros(change.rank, inputs)
    left[features.to(left.device)] = change.left
    right[:, columns.to(right.device)] = change.right
    return FactoredChange(left, right, change.scale)


def _config(
    model: PreTrainedModel, recipe: Recipe, changes: Mapping[str, FactoredChange], head: list[str]
) -> dict[str, Any]:
    """Return what adapter_config.json holds: one rank and α for most, and patterns for the modules that differ."""
    sizes = {path: (change.rank, _alpha(change)) for path, change in changes.items()}
    rank, alpha = collections.Counter(sizes.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "task_type": _task_type(model, has_head=bool(head)),
        "base_model_name_or_path": recipe.base.id,
        "revision": recipe.base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": all(isinstance(model.get_submodule(path), Conv1D) for path in changes),
        "target_modules": list(changes),
        "rank_pattern": {path: own for path, (own, _) in sizes.items() if own != rank},
        "alpha_pattern": {path: own for path, (_, own) in sizes.items() if own != alpha},
        "modules_to_save": list(dict.fromkeys(_module_to_save(model, name) for name in head)) or None,
        "use_rslora": False,
        "use_dora": False,
    }


def _alpha(change: FactoredChange) -> float:
    """Return α = scale · rank: the whole number it is, where it is one but for rounding."""
    alpha = change.scale * change.rank
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


def _task_type(model: PreTrainedModel, *, has_head: bool) -> str | None:
    """Return PEFT's word for what a model is for; None for one that it has no word for."""
    if has_head:
        return "SEQ_CLS"
    endings = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForConditionalGeneration": "SEQ_2_SEQ_LM"}
    return next((word for ending, word in endings.items() if type(model).__name__.endswith(ending)), None)


def _module_to_save(model: PreTrainedModel, name: str) -> str:
    """Return the module that holds a tensor of a head, of those that PEFT is to keep whole."""
    first, second, *_ = name.split(".")
    return f"{first}.{second}" if first == model.base_model_prefix else first
