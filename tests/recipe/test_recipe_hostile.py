"""Two hundred recipes that someone, or a disk, has tampered with: each is refused in a sentence, or does what it says."""

import copy
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.recipes import PROVENANCE
from torch import Tensor, nn

from strop.anatomy import MatrixType, StreamSite, WeightSite
from strop.errors import StropError
from strop.interventions import (
    LowRankEdit,
    OutputBias,
    Positions,
    RankReduction,
    SingularValuePruning,
    SpectrumScaling,
)
from strop.recipe import Recipe, applied

COUNT = 200
MOST_SECONDS, MOST_LETTERS = 10, 600
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 10**40, -0.0, 0.5, 1.5, 1e308, float("nan"), float("inf"), "", " ", "0",
    "up", "0-3", "0-99999999", "١", "\ud800", "a\nb", "x" * 5000, "../../etc", [], {}, [0], {"a": 1}, [[[]]], "f9999999999+l1",
    "f" + "9" * 4400, "e" * 200_000,
)  # fmt: skip
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.uint8)


@pytest.fixture(scope="module")
def model(tiny: Callable[..., nn.Module]) -> nn.Module:
    return tiny("llama")


@pytest.fixture(scope="module")
def honest(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with an entry of every kind."""
    up, down, key = (WeightSite(1, kind) for kind in (MatrixType.UP, MatrixType.DOWN, MatrixType.KEY))
    edits: dict[Any, dict[str, Tensor]] = {
        RankReduction(up, rank_fraction=0.5): {},
        SingularValuePruning(key, (0, 2, 3), bias="mean"): {"bias": torch.ones(16)},
        SpectrumScaling(WeightSite(0, MatrixType.QUERY), top=4): {"change": torch.ones(4)},
        SpectrumScaling(WeightSite(2, MatrixType.UP), step=0.1): {"levels": torch.ones(32, dtype=torch.int8)},
        OutputBias(down): {"bias": torch.ones(32)},
    }
    state = LowRankEdit(StreamSite(2), "loreft", rank=2, positions=Positions.parse("all"))
    edits[state] = state.initial_tensors((32, 32), generator=torch.Generator().manual_seed(0))
    recipe = Recipe.of(model, list(edits), tensors=list(edits.values()), provenance=PROVENANCE)
    folder = tmp_path_factory.mktemp("honest") / "recipe"
    return recipe.with_factors(model).save(folder)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(*path, key) for key in keys] + [place for key in keys for place in places_in(value[key], (*path, key))]


def change_document(content: Any, chance: random.Random) -> None:
    """Replace, remove, repeat or add a value somewhere."""
    place = chance.choice(places_in(content))
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    kind = chance.choice(["replace"] * 5 + ["remove", "swap", "add", "repeat"])
    if kind == "replace":
        holder[place[-1]] = chance.choice(STRANGE)
    elif kind == "remove":
        del holder[place[-1]]
    elif kind == "swap":
        other = chance.choice(places_in(content))
        value = content
        for key in other:
            value = value[key]
        holder[place[-1]] = copy.deepcopy(value)
    elif kind == "add" and isinstance(holder, dict):
        holder[chance.choice(["extra", "head", "expert", "stack", "path", "__class__"])] = chance.choice(STRANGE)
    elif isinstance(holder, list):
        holder.extend(copy.deepcopy(holder) * chance.choice([1, 100]))


def change_text(text: str, chance: random.Random) -> bytes:
    """Damage the document's bytes."""
    raw = bytearray(text.encode())
    kind = chance.choice(["cut", "flip", "repeat a key", "nest", "other text"])
    if kind == "cut":
        return bytes(raw[: chance.randrange(len(raw))])
    if kind == "flip":
        for _ in range(chance.choice([1, 3])):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        return bytes(raw)
    if kind == "repeat a key":
        return text.replace('"layer": 1', '"layer": 1, "layer": 0', 1).encode()
    if kind == "nest":
        deep = chance.choice([100, 100_000])
        return text.replace('"seed": 0', f'"seed": {"[" * deep}{"]" * deep}', 1).encode()
    return chance.choice([b"", b"null", b"[]", b"\x00" * 64, b"\x80\x04\x95", text.encode("utf-16")])


def change_tensors(tensors: dict[str, Tensor], chance: random.Random) -> None:
    """Damage a tensor, its name or its kind."""
    name = chance.choice(sorted(tensors))
    own = tensors[name]
    kind = chance.choice(["values", "bits", "strange", "shape", "dtype", "drop", "rename", "swap", "empty"])
    if kind == "values":
        tensors[name] = torch.randn(own.shape).to(own.dtype)
    elif kind == "bits":
        flat = own.clone().view(torch.uint8).flatten()
        flat[chance.randrange(len(flat))] ^= 1 << chance.randrange(8)
        tensors[name] = flat.view(own.dtype).reshape(own.shape)
    elif kind == "strange" and own.is_floating_point():
        tensors[name] = own.clone()
        tensors[name].view(-1)[0] = chance.choice([float("nan"), float("inf"), 3e38])
    elif kind == "shape":
        tensors[name] = own.repeat(*[2] * own.ndim)
    elif kind == "dtype":
        tensors[name] = own.to(chance.choice(DTYPES))
    elif kind == "drop":
        del tensors[name]
    elif kind == "empty":
        tensors[name] = own[:0].clone()
    else:
        renamed = chance.choice(
            [*sorted(tensors), "9.left", "head.weight", "0", ".left", "0.left.right", "x" * 5000, "\n"]
        )
        tensors[renamed] = tensors.pop(name)


def tamper(folder: Path, chance: random.Random) -> None:
    document, carried = folder / "recipe.json", folder / "tensors.safetensors"
    kind = chance.choice(["document"] * 4 + ["text", "tensors", "tensors", "file"])
    if kind == "document":
        content = json.loads(document.read_text(encoding="utf-8"))
        for _ in range(chance.choice([1, 1, 1, 3])):
            change_document(content, chance)
        document.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    elif kind == "text":
        document.write_bytes(change_text(document.read_text(encoding="utf-8"), chance))
    elif kind == "tensors":
        tensors = load_file(carried)
        change_tensors(tensors, chance)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, carried)
    else:
        raw = carried.read_bytes()
        header = chance.choice(
            [b"", raw[:8], raw[: len(raw) // 2], (2**62).to_bytes(8, "little") + raw[8:], raw + b"x"]
        )
        carried.write_bytes(header)


def test_two_hundred_tampered_recipes_are_refused_in_a_sentence_or_do_what_they_say(
    model: nn.Module, honest: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    torch.manual_seed(0)
    before = {name: own.clone() for name, own in model.state_dict().items()}
    said: list[str] = []
    for number in range(COUNT):
        folder = tmp_path / str(number)
        shutil.copytree(honest, folder)
        tamper(folder, chance)
        began = time.monotonic()
        try:
            use(Recipe.load(folder), model, tmp_path / f"{number}-again")
        except StropError as error:
            said.append(str(error))
        assert time.monotonic() - began < MOST_SECONDS
        shutil.rmtree(folder)
    assert len(said) > COUNT // 2
    assert all(sentence.isprintable() and len(sentence) <= MOST_LETTERS for sentence in said), said
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())


def use(recipe: Recipe, model: nn.Module, folder: Path) -> None:
    """Do with a recipe what people do."""
    recipe.check(model)
    with applied(model, recipe), torch.no_grad():
        model(input_ids=torch.arange(1, 9)[None], use_cache=False)
    recipe.save(folder)
    assert str(recipe)
