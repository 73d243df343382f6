"""Tiny models of architectures no family covers."""

from collections.abc import Callable

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM


def make_described(model_type: str, **settings: object) -> torch.nn.Module:
    common = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": False}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **common, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim in (2, 3):
                parameter.normal_(0, 0.15)
    return model.eval()


@pytest.fixture
def described() -> Callable[..., torch.nn.Module]:
    """A maker of tiny models that need a description: `described("opt", hidden_size=32)`."""
    return make_described
