"""The matrices with which a decoder's blocks read an encoder: a stack of their own over the same blocks."""

import re
from pathlib import Path

import pytest
import torch
from tests.fixtures.paired import FAMILIES, T5, make_tiny_paired

from strop.anatomy import Anatomy, MatrixType, Stack, WeightSite
from strop.anatomy.family_file import read_family
from strop.errors import SiteError

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "encoders.md"


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_each_stack_reads_its_own_parameters(model_type: str) -> None:
    model = make_tiny_paired(model_type)
    anatomy = Anatomy.of(model, family=FAMILIES[model_type])
    paths = {
        "t5": ("encoder.block.1.layer.0.SelfAttention.q", "decoder.block.1.layer.0.SelfAttention.q",
               "decoder.block.1.layer.1.EncDecAttention.q"),
        "bart": ("model.encoder.layers.1.self_attn.q_proj", "model.decoder.layers.1.self_attn.q_proj",
                 "model.decoder.layers.1.encoder_attn.q_proj"),
    }[model_type]  # fmt: skip
    for stack, path in zip((Stack.ENCODER, Stack.DECODER, Stack.CROSS), paths, strict=True):
        site = WeightSite(1, MatrixType.QUERY, stack=stack)
        assert torch.equal(anatomy.read_weight(model, site), model.get_parameter(f"{path}.weight"))
        assert anatomy.layers_of(stack) == (2 if (model_type, stack) == ("bart", Stack.ENCODER) else 3)
    heads = [anatomy.heads_of(MatrixType.QUERY, stack) for stack in (Stack.ENCODER, Stack.DECODER, Stack.CROSS)]
    assert heads == ([4, 4, 4] if model_type == "t5" else [4, 2, 2])
    assert anatomy.family.main_stack is Stack.ENCODER
    with pytest.raises(SiteError) as refused:
        anatomy.sites(matrix_types=(MatrixType.UP,), stack=Stack.CROSS)
    assert str(refused.value).endswith("block has no up matrix; it has query, key, value, output.")


def test_a_model_with_one_stack_has_no_other(tiny: object) -> None:
    anatomy = Anatomy.of(tiny("llama"))  # type: ignore[operator]
    assert anatomy.layers_of(None) == 3
    with pytest.raises(SiteError) as refused:
        anatomy.layers_of(Stack.CROSS)
    assert str(refused.value) == "cross: a Llama model has one stack, which has no name; leave it out."


def test_the_family_on_the_page_is_that_of_t5(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (text,) = (block for block in blocks if block.startswith("name: T5"))
    (tmp_path / "t5.yaml").write_text(text, encoding="utf-8")
    family = read_family(tmp_path / "t5.yaml")
    assert (family.paths, family.resumes, family.causal) == (T5.paths, False, False)
    for stack in T5.paths:
        assert family.matrices_of(stack) == T5.matrices_of(stack)
