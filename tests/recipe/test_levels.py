"""Levels of spectra are packed on disk into as few bits as they need; what was written before, or is damaged, is told apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import RecipeError
from strop.interventions import SpectrumScaling
from strop.recipe import Recipe

SITES = (WeightSite(0, MatrixType.QUERY), WeightSite(1, MatrixType.UP), WeightSite(2, MatrixType.KEY))
COUNTS = (32, 5, 16)
"""Singular values that are scaled at these places of the tiny model, 5 being the largest ones only."""


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny("llama")


@pytest.fixture
def stepped(model: Any) -> Callable[..., Recipe]:
    """Return a recipe whose levels are drawn from some values."""

    def of(*values: int) -> Recipe:
        generator = torch.Generator().manual_seed(0)
        tops = [5 if count == 5 else None for count in COUNTS]
        edits = [SpectrumScaling(site, 0.004, top=top) for site, top in zip(SITES, tops, strict=True)]
        drawn = [torch.tensor(values)[torch.randint(len(values), (count,), generator=generator)] for count in COUNTS]
        return Recipe.of(model, edits, tensors=[{"levels": own.to(torch.int8)} for own in drawn])

    return of


@pytest.mark.parametrize(
    ("values", "bits"),
    [((-1, 1), 1), ((3,), 1), ((-1, 0, 1), 2), ((-3, -1, 1, 3), 2), ((-128, -2, 0, 5, 127), 3)],
)
def test_levels_come_back_from_as_few_bits_as_tell_them_apart(
    stepped: Callable[..., Recipe], tmp_path: Path, values: tuple[int, ...], bits: int
) -> None:
    recipe = stepped(*values)
    recipe.save(tmp_path / "r")
    (name, kept) = next(iter(load_file(tmp_path / "r" / "tensors.safetensors").items()))
    assert (name, kept.dtype, kept.shape) == ("levels", torch.uint8, ((sum(COUNTS) * bits + 7) // 8,))
    assert json.loads((tmp_path / "r" / "recipe.json").read_text())["levels"] == {"values": list(values)}
    assert Recipe.load(tmp_path / "r") == recipe


def test_one_bit_a_value_is_the_index_of_its_level_lowest_bit_first(model: Any, tmp_path: Path) -> None:
    levels = torch.tensor([-1, 1, 1, -1, 1], dtype=torch.int8)
    Recipe.of(model, [SpectrumScaling(SITES[1], 0.01, top=5)], tensors=[{"levels": levels}]).save(tmp_path / "r")
    assert load_file(tmp_path / "r" / "tensors.safetensors")["levels"].tolist() == [0b10110]


def unpack(folder: Path, recipe: Recipe) -> Path:
    """Write a recipe's files as they were before levels were packed."""
    written = recipe.save(folder)
    content = json.loads((written / "recipe.json").read_text())
    del content["levels"]
    (written / "recipe.json").write_text(json.dumps(content))
    own = {f"{index}.levels": tensors["levels"].clone() for index, tensors in enumerate(recipe.tensors)}
    save_file(own, written / "tensors.safetensors")
    return written


def test_a_recipe_with_a_byte_a_level_means_the_same_bit_for_bit(
    model: Any, stepped: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = stepped(-3, -1, 1, 3)
    before, after = Recipe.load(unpack(tmp_path / "old", recipe)), Recipe.load(recipe.save(tmp_path / "new"))
    assert before == after == recipe
    anatomy = Anatomy.of(model)
    weights = []
    for own in (before, after):
        with strop.applied(model, own):
            weights.append([anatomy.read_weight(model, site).clone() for site in SITES])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*weights, strict=True))
    strop.bake(model, after, tmp_path / "baked")
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    assert all(torch.equal(anatomy.read_weight(baked, site), own) for site, own in zip(SITES, weights[0], strict=True))


def damaged(folder: Path, *, tensors: Any = None, levels: Any = "as they are") -> None:
    path, document = folder / "tensors.safetensors", folder / "recipe.json"
    if tensors is not None:
        save_file(tensors, path)
    if levels != "as they are":
        content = {**json.loads(document.read_text()), "levels": levels}
        document.write_text(json.dumps({name: own for name, own in content.items() if own is not None}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensors": {"levels": torch.zeros(13, dtype=torch.uint8)}}, r"levels of 2 bits each are 14 bytes, and it holds \(13,\)"),
        ({"tensors": {"levels": torch.zeros(14, dtype=torch.int8)}}, r"it holds \(14,\) of int8"),
        ({"tensors": {"levels": torch.zeros(7, 2, dtype=torch.uint8)}}, r"it holds \(7, 2\) of uint8"),
        ({"tensors": {"levels": torch.full((14,), 255, dtype=torch.uint8)}}, "its levels name others than the 3 that"),
        ({"tensors": {"levels": torch.tensor([0] * 13 + [4], dtype=torch.uint8)}}, "its levels name others than the 3"),
        ({"tensors": {"0.levels": torch.zeros(32, dtype=torch.int8)}}, "packed levels stand in it and in recipe.json"),
        ({"levels": None}, "packed levels stand in it and in recipe.json"),
        ({"levels": {"values": [1, -1, 0]}}, "levels are listed in ascending order, each once"),
        ({"levels": {"values": []}}, "levels.values: "),
        ({"levels": {"values": [-1, 0, 200]}}, "levels.values.2: "),
    ],
    ids=["short", "signed", "square", "unknown", "padding", "unpacked", "unlisted", "order", "none", "range"],
)  # fmt: skip
def test_levels_that_do_not_fit_are_refused(
    stepped: Callable[..., Recipe], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = stepped(-1, 0, 1).save(tmp_path / "r")
    damaged(folder, **change)
    with pytest.raises(RecipeError, match=said):
        Recipe.load(folder)


def test_levels_of_no_entry_are_refused(model: Any, tmp_path: Path) -> None:
    folder = Recipe.of(model, []).save(tmp_path / "r")
    damaged(folder, tensors={"levels": torch.zeros(0, dtype=torch.uint8)}, levels={"values": [1]})
    with pytest.raises(RecipeError, match="packed levels stand in it and in recipe.json, for entries with a step"):
        Recipe.load(folder)


def test_a_sharpening_of_many_matrices_takes_a_bit_a_value_and_two_lines_a_matrix(model: Any, tmp_path: Path) -> None:
    sites = Anatomy.of(model).sites()
    counts = [min(Anatomy.of(model).read_weight(model, site).shape) for site in sites]
    levels = [{"levels": torch.ones(count, dtype=torch.int8)} for count in counts]
    Recipe.of(model, [SpectrumScaling(site, 0.004) for site in sites], tensors=levels).save(tmp_path / "r")
    assert (tmp_path / "r" / "tensors.safetensors").stat().st_size <= sum(counts) // 8 + 200
    assert len((tmp_path / "r" / "recipe.json").read_text().splitlines()) <= 2 * len(sites) + 20
