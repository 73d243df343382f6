"""What the base said of the texts that edits are kept to is asked once for one model, and anew for any other."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fixtures.kept_texts import texts

from strop.anatomy import Anatomy
from strop.training.keep import KeepToBase, read_by


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were read, pass by pass."""
    found: list[int] = []
    leaving = KeepToBase._leaving

    def counting(self: KeepToBase, members: Any) -> Any:
        found.append(len(members))
        return leaving(self, members)

    monkeypatch.setattr(KeepToBase, "_leaving", counting)
    return found


def keeper(model: Any, read_as: str | None, held: Any = None) -> KeepToBase:
    held = texts() if held is None else held
    return KeepToBase(model, Anatomy.of(model), held, weight=1.0, per_pass=5, read_as=read_as)


def test_the_same_is_not_read_again(tiny: Callable[..., Any], passes: list[int]) -> None:
    model = tiny("llama")
    first = keeper(model, read_by(model, "f", "float32"))
    count = sum(passes)
    again = keeper(model, read_by(model, "f", "float32"))
    assert sum(passes) == count == 5
    assert all(torch.equal(mine, other) for mine, other in zip(first._base, again._base, strict=True))


@pytest.mark.parametrize("changed", ["weights", "precision", "texts", "nothing said"])
def test_anything_else_is(tiny: Callable[..., Any], passes: list[int], changed: str) -> None:
    model = tiny("llama")
    keeper(model, read_by(model, "f", "float32"))
    before = sum(passes)
    keeper(
        model,
        None if changed == "nothing said" else read_by(
            model, "g" if changed == "weights" else "f", "bfloat16" if changed == "precision" else "float32"
        ),
        texts()[:1] if changed == "texts" else None,
    )  # fmt: skip
    assert sum(passes) > before


def test_another_model_is_read_for_itself(tiny: Callable[..., Any], passes: list[int]) -> None:
    for _ in range(2):
        model = tiny("llama")
        keeper(model, read_by(model, "f", "float32"))
    assert sum(passes) == 10
