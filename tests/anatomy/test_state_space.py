"""State-space mixers, attention in two steps and shared experts: matrices with names of their own, models without heads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.mixtures import FAMILIES, STATE_SPACE, make_described

from strop.anatomy import Anatomy, MatrixType, Tap, WeightSite, by_sequence, read_family
from strop.errors import AnatomyError, SiteError

T = MatrixType
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [3, 4, 5, 6, 0, 0]])


@pytest.mark.parametrize("name", [*STATE_SPACE, "deepseek_v2", "deepseek_v3", "qwen2_moe"])
def test_every_matrix_that_a_module_shows_makes_its_output_of_its_input(name: str) -> None:
    model = make_described(name)
    anatomy = Anatomy.of(model, family=FAMILIES[name])
    sites = [site for site in anatomy.sites() if anatomy.spelling(site).sees_every_token]
    assert {site.matrix_type for site in sites} >= set(FAMILIES[name].matrices) - {T.GATE, T.UP, T.DOWN, T.MIXER_STEP}
    with Tap(model, anatomy, sites) as tap, torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    assert set(tap.only) == set(tap.sites)
    for module, at_module in tap.sites.items():
        for site in at_module:
            inputs = anatomy.inputs_in(by_sequence(tap.only[module].inputs, IDS), site)
            outputs = anatomy.outputs_in(by_sequence(tap.only[module].output, IDS), site)
            bias = getattr(module, "bias", None)
            made = inputs @ anatomy.read_weight(model, site).T + (0 if bias is None else bias)
            torch.testing.assert_close(outputs, made, msg=str(site))


def test_what_is_up_of_an_mlp_is_neither_shared_nor_a_part_of_attention() -> None:
    anatomy = Anatomy.of(make_described("deepseek_v3"), family=FAMILIES["deepseek_v3"])
    assert {str(site) for site in anatomy.sites(layers=[1], matrix_types=[T.UP])} == {
        f"layer 1 up expert {expert}" for expert in range(4)
    }
    assert anatomy.sites(layers=[1], matrix_types=[T.SHARED_UP]) == (WeightSite(1, T.SHARED_UP),)
    assert MatrixType.parse("Key_Value_Down") is T.KEY_VALUE_DOWN
    assert WeightSite.from_json(WeightSite(2, T.MIXER_OUT).to_json()) == WeightSite(2, T.MIXER_OUT)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_model_without_attention_has_no_heads_and_says_so(name: str) -> None:
    model = make_described(name)
    anatomy = Anatomy.of(model, family=FAMILIES[name])
    sizes = (anatomy.head_count, anatomy.key_value_head_count, anatomy.head_size, anatomy.hidden_size)
    assert sizes == (0, 0, 0, 32)
    with pytest.raises(SiteError, match="A mixer_in matrix has no heads"):
        WeightSite(0, T.MIXER_IN, head=0)
    with pytest.raises(
        SiteError, match=f"layer 0 query head 1: a {name} block has no query matrix; it has mixer_in, mi"
    ):
        anatomy.read_weight(model, WeightSite(0, T.QUERY, head=1))


FILE = """
name: mamba
model_types: [mamba]
blocks: backbone.layers
matrices:
  mixer_in: mixer.in_proj
  mixer_out: mixer.out_proj
  mixer_select: mixer.x_proj
  mixer_step: {path: mixer.dt_proj, called: false}
"""


def test_a_family_file_describes_a_mixer(tmp_path: Path) -> None:
    (tmp_path / "mamba.yaml").write_text(FILE, encoding="utf-8")
    assert read_family(tmp_path / "mamba.yaml") == FAMILIES["mamba"]


def test_a_module_that_is_never_called_shows_nothing(tmp_path: Path) -> None:
    model: Any = make_described("mamba")
    anatomy = Anatomy.of(model, family=FAMILIES["mamba"])
    with pytest.raises(AnatomyError, match="never calls it; choose other matrices, or what reads the weights alone"):
        Tap(model, anatomy, [WeightSite(1, T.MIXER_STEP)])
    (tmp_path / "mamba.yaml").write_text(FILE.replace(", called: false", ""), encoding="utf-8")
    wrong = Anatomy.of(model, family=read_family(tmp_path / "mamba.yaml"))
    with Tap(model, wrong, [WeightSite(1, T.MIXER_STEP)]) as tap, torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    with pytest.raises(AnatomyError, match=r"layer 1 mixer_step: the block never calls .*; describe it with called: f"):
        _ = tap.only
