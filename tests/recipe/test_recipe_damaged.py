"""A folder that holds no recipe, or a damaged one, is refused in a sentence, and nothing in it is executed."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.recipes import EDITS, PROVENANCE, logits
from torch import nn

from strop.errors import InterventionError, RecipeError
from strop.interventions import method_names
from strop.recipe import FORMAT, Recipe, applied, attach


@pytest.fixture
def written(llama: nn.Module, tmp_path: Path) -> Path:
    return Recipe.of(llama, EDITS, provenance=PROVENANCE).with_factors(llama).save(tmp_path / "facts")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing is not a recipe: it holds no recipe\.json\.$"):
        Recipe.load(tmp_path / "nothing")


def test_a_run_folder_is_told_where_its_recipe_lies(llama: nn.Module, tmp_path: Path) -> None:
    Recipe.of(llama, EDITS).save(tmp_path / "run" / "recipe")
    with pytest.raises(RecipeError, match=rf"run is not a recipe: .* Did you mean {tmp_path / 'run' / 'recipe'}\?"):
        Recipe.load(tmp_path / "run")


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "recipe.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\ufeff{}", '{"format": 1', "[" * 100_000])
def test_a_document_that_is_no_json_object_is_refused_by_its_path(text: str, written: Path) -> None:
    (written / "recipe.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"facts.recipe\.json cannot be read as a recipe: .+") as caught:
        Recipe.load(written)
    assert "\n" not in str(caught.value)


def test_a_document_that_is_not_text_is_refused_by_its_path(written: Path) -> None:
    (written / "recipe.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match=r"recipe\.json cannot be read as a recipe"):
        Recipe.load(written)


@pytest.mark.parametrize("key", ["format", "base", "interventions", "matrices"])
def test_a_missing_key_is_named(key: str, written: Path) -> None:
    change(written, lambda content: content.pop(key))
    with pytest.raises(RecipeError, match=rf"recipe\.json cannot be read as a recipe: {key}: Field required") as caught:
        Recipe.load(written)
    assert "\n" not in str(caught.value)


def test_a_missing_key_inside_is_named_with_its_path(written: Path) -> None:
    change(written, lambda content: content["matrices"][1].pop("shape"))
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe: matrices\.1\.shape: Field required"):
        Recipe.load(written)


def test_a_newer_format_is_refused_with_both_versions_whatever_else_it_holds(written: Path) -> None:
    (written / "recipe.json").write_text(json.dumps({"format": FORMAT + 1, "entirely": "different"}))
    with pytest.raises(RecipeError, match=rf"is of format {FORMAT + 1}, .* reads up to {FORMAT}: upgrade Strop"):
        Recipe.load(written)


def test_an_unknown_method_is_refused_with_the_methods_there_are(written: Path) -> None:
    change(written, lambda content: content["interventions"][0].update(method="os.system"))
    known = re.escape(", ".join(method_names()))
    with pytest.raises(RecipeError, match=rf"'os\.system' is not a method this version knows \({known}\)"):
        Recipe.load(written)


@pytest.mark.parametrize("key", ["interventions", "matrices"])
def test_an_entry_taken_out_is_noticed(key: str, written: Path) -> None:
    change(written, lambda content: content[key].pop())
    with pytest.raises(RecipeError):
        Recipe.load(written)


@pytest.mark.parametrize("content", [b"", b"garbage" * 10, b"\xff" * 16])
def test_damaged_tensors_are_refused_by_their_path(content: bytes, written: Path) -> None:
    (written / "tensors.safetensors").write_bytes(content)
    with pytest.raises(RecipeError, match=r"facts.tensors\.safetensors cannot be read: .+"):
        Recipe.load(written)


@pytest.mark.parametrize("name", ["3.left", "-1.left", "left", "x.left", "0", "1e0.left"])
def test_a_tensor_that_belongs_to_no_intervention_is_refused_by_its_name(name: str, written: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: torch.zeros(2, 2)}, written / "tensors.safetensors")
    with pytest.raises(RecipeError, match=rf"'{re.escape(name)}'.*belongs to no intervention"):
        Recipe.load(written)


def test_tensors_of_the_wrong_shape_are_refused_when_applied(written: Path, llama: nn.Module) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(written / "tensors.safetensors")
    tensors["0.left"] = torch.zeros(7, 8)
    save_file(tensors, written / "tensors.safetensors")
    plain = logits(llama)
    with pytest.raises(InterventionError, match=r"layer 1 up.*factors of shapes \(7, 8\) and \(8, 32\)"):
        attach(llama, Recipe.load(written))
    assert torch.equal(logits(llama), plain)


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_beside_a_recipe_is_never_opened(written: Path, tmp_path: Path, llama: nn.Module) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for name in ("tensors.pt", "pytorch_model.bin", "recipe.pkl", "__init__.py", "strop.py"):
        (written / name).write_bytes(trap)
    with applied(llama, Recipe.load(written)):
        pass
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists()  # it would have gone off


def test_a_pickle_in_the_tensors_place_is_refused_and_not_opened(written: Path, tmp_path: Path) -> None:
    (written / "tensors.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(RecipeError, match=r"tensors\.safetensors cannot be read"):
        Recipe.load(written)
    assert not (tmp_path / "sprung").exists()
