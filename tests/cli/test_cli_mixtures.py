"""The overview of models whose matrices are an expert's or a mixer's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.mixtures import make_described

MAMBA = "name: mamba\nblocks: backbone.layers\nmatrices: {mixer_in: mixer.in_proj, mixer_out: mixer.out_proj}\n"
MIXTRAL = """
name: mixtral
blocks: model.layers
matrices:
  query: self_attn.q_proj
  down: {path: mlp.experts, parameter: down_proj, experts: stacked}
"""


@pytest.mark.parametrize(
    ("name", "family", "shown"),
    [
        ("mamba", MAMBA, ["2 layers, hidden size 32, no heads;", "4 matrices: 2 mixer_in, 2 mixer_out", "128x32"]),
        ("mixtral", MIXTRAL, ["4 heads of 8 (2 for keys and values)", "down expert 2", "8 matrices: 2 query, 6 down"]),
    ],
)
def test_inspect_shows_mixers_and_each_expert(
    name: str, family: str, shown: list[str], strop_command: Callable[..., Any], small_tokenizer: Any, tmp_path: Path
) -> None:
    make_described(name).save_pretrained(tmp_path / name)
    small_tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "family.yaml").write_text(family, encoding="utf-8")
    outcome = strop_command("inspect", tmp_path / name, "--family", tmp_path / "family.yaml")
    assert outcome.code == 0
    assert "\nspelling given by a description and checked by forward passes\n" in outcome.out
    for words in shown:
        assert words in outcome.out
