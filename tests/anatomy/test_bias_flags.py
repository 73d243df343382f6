"""Which settings give which matrices a bias: what the families say is what transformers builds."""

from collections.abc import Callable

import pytest
from torch import nn

from strop.anatomy import FAMILIES, Anatomy, BiasFlag, Family, MatrixType, read_family

T = MatrixType
Tiny = Callable[..., nn.Module]
FLAGS = [(flag, model_type) for family in FAMILIES for flag in family.bias_flags for model_type in flag.model_types]
MODEL_TYPES = [model_type for family in FAMILIES for model_type in family.model_types]


def biased(model: nn.Module) -> set[MatrixType]:
    """The matrix types whose modules have a bias, in every layer alike."""
    anatomy = Anatomy.of(model)
    found = {site for site in anatomy.sites() if anatomy.module(model, site).bias is not None}
    types = {site.matrix_type for site in found}
    assert found == {site for site in anatomy.sites() if site.matrix_type in types}
    return types


@pytest.mark.parametrize(("flag", "model_type"), FLAGS, ids=lambda value: getattr(value, "name", value))
def test_a_flag_gives_its_matrices_a_bias_and_changes_nothing_else(flag: BiasFlag, model_type: str, tiny: Tiny) -> None:
    without, having = tiny(model_type, **{flag.name: False}), tiny(model_type, **{flag.name: True})
    anatomy = Anatomy.of(having)
    assert biased(having) - biased(without) == set(flag.matrix_types)
    paths = {anatomy.module_path(site) for site in anatomy.sites(matrix_types=flag.matrix_types)}
    assert having.state_dict().keys() - without.state_dict().keys() == {f"{path}.bias" for path in paths}
    assert without.state_dict().keys() <= having.state_dict().keys()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_no_flag_of_a_config_is_missing(model_type: str, tiny: Tiny) -> None:
    config = tiny(model_type).config
    (family,) = (family for family in FAMILIES if model_type in family.model_types)
    switches = {name for name, value in config.to_dict().items() if "bias" in name and isinstance(value, bool)}
    giving = {
        name
        for name in switches
        if biased(tiny(model_type, **{name: True})) - biased(tiny(model_type, **{name: False}))
    }
    assert giving == {flag.name for flag in family.bias_flags if model_type in flag.model_types}


def test_a_flag_is_found_by_matrix_and_model_type() -> None:
    (llama, *_) = FAMILIES
    for matrix_type, model_type, name in (
        (T.KEY, "llama", "attention_bias"),
        (T.DOWN, "granite", "mlp_bias"),
        (T.VALUE, "stablelm", "use_qkv_bias"),
        (T.OUTPUT, "stablelm", None),
        (T.UP, "qwen3", None),
        (T.KEY, "mistral", None),
    ):
        flag = llama.bias_flag(matrix_type, model_type)
        assert (flag.name if flag else None) == name


def test_a_family_file_names_flags_too(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nblocks: model.layers\nmatrices: {up: fc1}\n"
        "bias_flags: [{name: use_bias, matrix_types: [up], model_types: [mine]}]\n",
        encoding="utf-8",
    )
    family = read_family(path)
    assert isinstance(family, Family)
    assert family.bias_flags == (BiasFlag("use_bias", (T.UP,), ("mine",)),)
