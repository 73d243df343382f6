"""Which model this is: the same digits as ever, and no byte hashed twice."""

import hashlib
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import strop.checkpoints.hashing as hashing
from strop.checkpoints import identify

fingerprint_room = import_module("strop.linalg.fingerprint")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Strop's cache folder, in which fingerprints of models of any size are kept; nothing is known yet."""
    monkeypatch.setenv("STROP_CACHE", str(tmp_path))
    monkeypatch.setattr(hashing, "REMEMBERED_BYTES", 1)
    monkeypatch.setattr(fingerprint_room, "_KNOWN", {})
    return tmp_path / "fingerprints"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that are hashed, tensor by tensor."""
    found: list[int] = []
    plain = fingerprint_room._hashed

    def counting(tensor: Tensor) -> str:
        found.append(tensor.nbytes)
        return plain(tensor)

    monkeypatch.setattr(fingerprint_room, "_hashed", counting)
    return found


def by_hand(model: PreTrainedModel) -> str:
    """One SHA-256 of each parameter's dtype, shape and bytes; one of their names and what came of them, in order."""
    whole = hashlib.sha256()
    for name, parameter in model.named_parameters():
        own = parameter.detach()
        digits = hashlib.sha256(f"{own.dtype}{tuple(own.shape)}".encode() + own.view(torch.uint8).numpy().tobytes())
        whole.update(f"{name}={digits.hexdigest()[:32]};".encode())
    return whole.hexdigest()[:32]


@pytest.fixture
def distinct(tiny) -> Callable[[], PreTrainedModel]:
    """Makes a model no two of whose tensors hold the same numbers, the same each time."""

    def make() -> PreTrainedModel:
        model, generator = tiny("llama"), torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator)
        return model

    return make


def bytes_of(model: PreTrainedModel) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize("threads", [1, 3])
def test_the_fingerprint_is_that_of_every_recipe_on_disk(threads: int, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = tiny("llama")
    assert identify(model).fingerprint == by_hand(model)
    assert identify(model.bfloat16()).fingerprint == by_hand(model)


def test_the_largest_tensors_are_begun_first(tiny, hashed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    identify(tiny("llama"))
    assert hashed == sorted(hashed, reverse=True)


def test_every_byte_is_hashed_once_and_never_again(distinct, kept: Path, hashed: list[int], monkeypatch) -> None:
    model = distinct()
    first = identify(model)
    assert sum(hashed) == bytes_of(model)
    assert first.fingerprint == by_hand(model)
    hashed.clear()
    assert identify(model) == first
    monkeypatch.setattr(fingerprint_room, "_KNOWN", {})  # another process
    assert identify(distinct()) == first
    assert hashed == []
    assert len(list(kept.iterdir())) == 1


def test_only_what_changed_is_hashed_again(distinct, kept: Path, hashed: list[int]) -> None:
    model = distinct()
    first = identify(model)
    hashed.clear()
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.data[3].neg_()  # behind every version counter's back
    assert identify(model).fingerprint == by_hand(model) != first.fingerprint
    assert hashed == [weight.nbytes]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', "zeros", "short"])
def test_a_damaged_memory_is_not_believed(damage: str, distinct, kept: Path, hashed: list[int], monkeypatch) -> None:
    model = distinct()
    first = identify(model)
    (path,) = kept.iterdir()
    if damage in ("zeros", "short"):
        known = json.loads(path.read_text())
        wrong = 5 if damage == "zeros" else "0123"
        damage = json.dumps({**known, next(iter(known)): wrong})
    path.write_text(damage)
    hashed.clear()
    monkeypatch.setattr(fingerprint_room, "_KNOWN", {})
    assert identify(model) == first
    assert sum(hashed) == bytes_of(model)
    hashed.clear()
    monkeypatch.setattr(fingerprint_room, "_KNOWN", {})
    assert identify(model) == first  # it was written anew
    assert hashed == []


def test_a_folder_that_cannot_be_written_costs_only_the_reuse(
    distinct, tmp_path: Path, kept: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STROP_CACHE", str(tmp_path / "file"))
    model = distinct()
    assert identify(model).fingerprint == by_hand(model)


def test_a_small_model_leaves_nothing_on_disk(distinct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_CACHE", str(tmp_path))
    identify(distinct())
    assert not list(tmp_path.iterdir())
