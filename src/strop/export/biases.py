"""How an ordinary checkpoint holds the biases of a recipe."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.errors import InterventionError
from strop.recipe.document import Recipe


def room_for_biases(
    model: PreTrainedModel, anatomy: Anatomy, recipe: Recipe
) -> tuple[PretrainedConfig, dict[str, Tensor]]:
    """Return the config, and the additional tensors, under which a checkpoint holds a recipe's biases.

    Where a module has no bias, the architecture's own setting gives it one, and gives one to every other module it
    governs; these are zeros.

    Args:
        model: the base, with nothing attached; left as it is.
        anatomy: of that model.
        recipe: what is to be baked.

    Returns:
        A copy of the model's config, and a bias of zeros for each module that has one under it and none in the model.

    Raises:
        InterventionError: the architecture can hold no bias where the recipe has one.
    """
    config = copy.deepcopy(model.config)
    sites = [site for site in _biased_sites(recipe) if getattr(anatomy.module(model, site), "bias", None) is None]
    if not sites:
        return config, {}
    wanted = {f"{anatomy.module_path(site)}.bias": site for site in sites}
    for name in _switches(model.config):
        if wanted.keys() & _missing_biases(model, _switched(model.config, name)).keys():
            config = _switched(config, name)
    zeros = _missing_biases(model, config)
    for name, site in wanted.items():
        if name not in zeros:
            raise _no_room(anatomy, site, f"no setting of a {config.model_type} config gives it one")
    return config, zeros


def _switches(config: PretrainedConfig) -> list[str]:
    """Return the settings of a config that say whether something has a bias, such as `attention_bias`."""
    settings = config.get_text_config().to_dict()
    return [name for name, value in settings.items() if "bias" in name and isinstance(value, bool)]


def _switched(config: PretrainedConfig, name: str) -> PretrainedConfig:
    other = copy.deepcopy(config)
    text = other.get_text_config()
    setattr(text, name, not getattr(text, name))
    return other


@contextlib.contextmanager
def under_config(model: PreTrainedModel, config: PretrainedConfig) -> Iterator[None]:
    """Let a model be saved under another config than its own, which is left alone."""
    own = model.config
    model.config = config
    try:
        yield
    finally:
        model.config = own


def refuse_unbakeable(recipe: Recipe) -> None:
    """Raise InterventionError if a recipe holds what no checkpoint's weights can, whatever the model.

    Args:
        recipe: what is to be baked.
    """
    for intervention, tensors in zip(recipe.interventions, recipe.tensors, strict=True):
        obstacle = intervention.obstacle_to_baking(tensors)
        if obstacle is not None:
            raise InterventionError(f"{intervention.site}: {obstacle}")


def _biased_sites(recipe: Recipe) -> list[WeightSite]:
    sites: list[WeightSite] = []
    for intervention, tensors in zip(recipe.interventions, recipe.tensors, strict=True):
        if intervention.kind == "weight" and intervention.output_shift(tensors) is not None:
            sites.append(intervention.site)
    return sites


def _no_room(anatomy: Anatomy, site: WeightSite, reason: str) -> InterventionError:
    return InterventionError(
        f"{site}: a checkpoint cannot hold a bias of {anatomy.module_path(site)}, for {reason}; keep the "
        "recipe and apply it, or prune with --bias none where it is a pruning's."
    )


def _missing_biases(model: PreTrainedModel, config: PretrainedConfig) -> dict[str, Tensor]:
    """Return zeros for the biases that a model of this config has beside all the model holds; none if it lacks some of that."""
    with torch.device("meta"):
        expected: dict[str, Tensor] = type(model)(config).state_dict()
    held = model.state_dict()
    if not held.keys() <= expected.keys():
        return {}
    return {
        name: held[f"{name.removesuffix('bias')}weight"].new_zeros(tensor.shape)
        for name, tensor in expected.items()
        if name.endswith(".bias") and name not in held
    }
