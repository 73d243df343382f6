"""An encoder with its decoder is read as stacks; a block that layers share is said to be shared."""

import pytest
from tests.fixtures.paired import FAMILIES, make_tiny_paired

from strop.anatomy import Anatomy, Stack


@pytest.mark.parametrize("model_type", [*FAMILIES])
def test_an_encoder_decoder_is_read_as_it_was_written_down(model_type: str) -> None:
    model, expected = make_tiny_paired(model_type), FAMILIES[model_type]
    found = Anatomy.of(model).family
    assert (found.blocks, found.causal, found.resumes) == (expected.blocks, False, False)
    assert found.stacks == expected.stacks
    for stack in Stack.ENCODER, Stack.DECODER, Stack.CROSS:
        assert found.matrices_of(stack) == expected.matrices_of(stack)
