"""Models that recipes are made for."""

from collections.abc import Callable

import pytest
from tests.fixtures.recipes import Tiny
from torch import nn


@pytest.fixture(params=["llama", "gpt2", "gpt_neox"])
def model(request: pytest.FixtureRequest, tiny: Tiny) -> nn.Module:
    return tiny(request.param)


@pytest.fixture
def llama(tiny: Tiny) -> nn.Module:
    return tiny("llama")


@pytest.fixture
def never_decomposing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def never(*arguments: object, **settings: object) -> None:
            raise AssertionError("a decomposition was made")

        monkeypatch.setattr("strop.linalg.cache.decompose", never)
        monkeypatch.setattr("strop.linalg.cache.safe_open", never)

    return forbid
