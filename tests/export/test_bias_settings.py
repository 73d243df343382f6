"""Which settings of a config give which matrices a bias: what is written down is what transformers builds."""

from collections.abc import Callable

import pytest
from tests.conftest import TINY
from tests.fixtures.oracles import BIAS_SETTINGS
from torch import nn

from strop.anatomy import Anatomy, MatrixType

Tiny = Callable[..., nn.Module]


def biased(model: nn.Module) -> set[MatrixType]:
    """The matrix types whose modules have a bias, in every layer alike."""
    anatomy = Anatomy.of(model)
    found = {site for site in anatomy.sites() if anatomy.module(model, site).bias is not None}
    types = {site.matrix_type for site in found}
    assert found == {site for site in anatomy.sites() if site.matrix_type in types}
    return types


@pytest.mark.parametrize(("model_type", "setting", "matrix_types"), BIAS_SETTINGS)
def test_a_setting_gives_its_matrices_a_bias_and_changes_nothing_else(
    model_type: str, setting: str, matrix_types: tuple[MatrixType, ...], tiny: Tiny
) -> None:
    without, having = tiny(model_type, **{setting: False}), tiny(model_type, **{setting: True})
    anatomy = Anatomy.of(having)
    assert biased(having) - biased(without) == set(matrix_types)
    paths = {anatomy.module_path(site) for site in anatomy.sites(matrix_types=matrix_types)}
    assert having.state_dict().keys() - without.state_dict().keys() == {f"{path}.bias" for path in paths}
    assert without.state_dict().keys() <= having.state_dict().keys()


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_no_setting_of_a_config_is_missing(model_type: str, tiny: Tiny) -> None:
    config = tiny(model_type).config
    switches = {name for name, value in config.to_dict().items() if "bias" in name and isinstance(value, bool)}
    giving = {
        name
        for name in switches
        if biased(tiny(model_type, **{name: True})) - biased(tiny(model_type, **{name: False}))
    }
    assert giving == {setting for owner, setting, _ in BIAS_SETTINGS if owner == model_type}
