"""A folder that holds no recipe, or a damaged one, is refused in a sentence, and nothing in it is executed."""

import json
import pickle
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.recipes import EDITS, PROVENANCE
from torch import nn

from strop.anatomy import MatrixType, WeightSite
from strop.errors import RecipeError
from strop.interventions import OutputBias, SingularValuePruning, method_names
from strop.recipe import FORMAT, Recipe, applied


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


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "tensors.safetensors")
    edit(tensors)
    save_file(tensors, folder / "tensors.safetensors")


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("0.left", torch.zeros(7, 8), r", entry 0: layer 1 up: factors of shapes \(7, 8\) and \(8, 32\)"),
        ("1.scale", torch.zeros(2), ", entry 1: layer 0 query: rank_reduction knows no tensor 'scale'"),
        ("0.left", torch.full((48, 8), torch.inf), ": its tensor '0.left' holds NaN or infinity; copy"),
        ("0.right", torch.full((8, 32), torch.nan), ": its tensor '0.right' holds NaN or infinity; copy"),
        ("0.left", torch.zeros(48, 8, dtype=torch.int32), ": its tensor '0.left' is made of int32, and a recipe holds"),
        ("0.left", torch.zeros(48, 8, dtype=torch.complex64), ": its tensor '0.left' is made of complex64, and"),
        ("0.left", torch.zeros(48, 8, dtype=torch.int8), ", entry 0: layer 1 up: its factors are not made of finite"),
        (
            "0.left",
            torch.zeros(48, 8, dtype=torch.float64),
            ", entry 0: layer 1 up: its left, right are of float32 and float64",
        ),
        ("00.left", torch.zeros(48, 8), " cannot be read: its tensor '00.left' belongs to no intervention"),
        ("\u0661.left", torch.zeros(48, 8), " cannot be read: its tensor '\u0661.left' belongs to no intervention"),
        (
            "head.weight",
            torch.zeros(2),
            "its head's tensor 'weight' is in only one of recipe.json and tensors.safetensors",
        ),
    ],
)
def test_a_tensor_that_is_not_the_entrys_own_is_refused_by_file_entry_and_name(
    name: str, tensor: torch.Tensor, complaint: str, written: Path
) -> None:
    change_tensors(written, lambda tensors: tensors.update({name: tensor}))
    with pytest.raises(RecipeError, match=f"{complaint}"):
        Recipe.load(written)


def test_a_factor_that_is_missing_is_refused_by_its_entry(written: Path) -> None:
    change_tensors(written, lambda tensors: tensors.pop("2.right"))
    with pytest.raises(
        RecipeError, match=r"tensors\.safetensors, entry 2: layer 2 value head 1: .* and none do not make a"
    ):
        Recipe.load(written)


def test_learned_tensors_that_are_lost_are_missed_before_a_model_is_loaded(llama: nn.Module, tmp_path: Path) -> None:
    bias = OutputBias(WeightSite(1, MatrixType.DOWN))
    Recipe.of(llama, [bias], tensors=[{"bias": torch.ones(32)}]).save(tmp_path / "learned")
    (tmp_path / "learned" / "tensors.safetensors").unlink()
    with pytest.raises(
        RecipeError, match=r"entry 0: layer 1 down: the recipe's bias is missing; copy the whole folder"
    ):
        Recipe.load(tmp_path / "learned")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda c: c.update(extra=1), "cannot be read as a recipe: extra: it is no key of a recipe; take it out"),
        (lambda c: c["base"].update(path="x"), "base.path: it is no key of a recipe; take it out, or upgrade Strop"),
        (
            lambda c: c["interventions"][0].update(scale=2),
            r", entry 0: rank_reduction knows no 'scale' \(method, layer",
        ),
        (lambda c: c["interventions"][0].update(rank=9), ", entry 0: its rank is 9, and what it decides makes it 8"),
        (
            lambda c: c["interventions"][0].update(rank_fraction=False),
            "its rank_fraction is False, and .* makes it 0.0",
        ),
        (lambda c: c["interventions"][0].update(layer=1.0), "its layer is 1.0, not a whole number"),
        (lambda c: c.update(format=0), "is of format 0, and formats are counted from 1"),
        (lambda c: c.update(format="1"), "format: Input should be a valid integer"),
        (lambda c: c["matrices"][0].update(shape=[2**21, 8]), r"matrices\.0\.shape\.0: Input should be less than"),
        (lambda c: c["matrices"][0].update(shape=[-1, 8]), r"matrices\.0\.shape\.0: Input should be greater than"),
        (lambda c: c["matrices"][0].update(fingerprint="0"), r"matrices\.0\.fingerprint: String should match"),
        (lambda c: c["base"].update(id="a\nb"), r"base\.id: String should match pattern"),
        (lambda c: c["base"].update(id="\ud800"), "a text holds half a character"),
        (lambda c: c["provenance"].update(seed=10**30), "the number 1000000000000000000000000000000 is too large"),
        (lambda c: c["provenance"].update(loss=float("nan")), "NaN is no number in JSON"),
        (lambda c: c["provenance"].update(loss=float("-inf")), "-Infinity is no number in JSON"),
        (lambda c: c["matrices"].pop(), "holds 3 interventions and 2 matrices, and each intervention needs one"),
    ],
)
def test_what_a_document_should_not_say_is_refused_by_its_place(
    edit: Callable[[dict[str, Any]], object], complaint: str, written: Path
) -> None:
    change(written, edit)
    with pytest.raises(RecipeError, match=rf"facts.recipe\.json.*{complaint}") as caught:
        Recipe.load(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"format": 1', '"format": 1, "format": 1', "the key 'format' is there twice"),
        ('"seed": 0', '"seed": 1e999', "the number 1e999 is too large"),
        ('"seed": 0', f'"seed": {"[" * 200}{"]" * 200}', "lists lie too deep in one another"),
    ],
)
def test_a_text_that_readers_may_take_otherwise_is_refused(old: str, new: str, complaint: str, written: Path) -> None:
    path = written / "recipe.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RecipeError, match=rf"recipe\.json cannot be read as a recipe: {complaint}\.$"):
        Recipe.load(written)


@pytest.mark.parametrize(
    "removed", ["0-9999999", "0-999999," * 9 + "9000000-9999999", ",".join(f"{n}-{n}" for n in range(0, 99999, 2))]
)
def test_a_few_bytes_that_claim_gigabytes_are_refused_before_they_are_taken(
    removed: str, llama: nn.Module, tmp_path: Path
) -> None:
    Recipe.of(llama, [SingularValuePruning(WeightSite(1, MatrixType.UP), (0, 1))]).save(tmp_path / "bomb")
    change(tmp_path / "bomb", lambda content: content["interventions"][0].update(removed=removed))
    tracemalloc.start()
    with pytest.raises(RecipeError, match=r"entry 0: .*components 0 to 31"):
        Recipe.load(tmp_path / "bomb")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


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
