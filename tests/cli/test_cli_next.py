"""The next command can be copied: it is quoted for a shell, keeps every option it needs, and is worth trying."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fixtures.results import gain_of, result_of

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction
from strop.recipe import Recipe
from strop.statistics import Comparison

ODD = "a model (mine)"


@pytest.fixture
def odd(tiny_folder: Path, facts: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A model and a task file whose paths hold blanks and brackets."""
    task = tmp_path / "my facts.yaml"
    task.write_text(facts.read_text())
    return Path(shutil.copytree(tiny_folder, tmp_path / ODD)), task


def next_of(outcome: Any) -> list[str]:
    """Return the words of the next command, as a shell reads them."""
    assert outcome.code == 0, outcome.err
    line = outcome.out.splitlines()[-1]
    assert line.startswith("Next: strop ")
    return shlex.split(line.removeprefix("Next: strop "))


def test_the_next_command_runs_as_it_stands(
    strop_command: Callable[..., Any], odd: tuple[Path, Path], family_file: Path, tmp_path: Path
) -> None:
    """From a look at the model to a baked checkpoint, by copying."""
    model, task = odd
    loading = ["--dtype", "float32", "--device", "cpu", "--family", family_file]
    words = next_of(strop_command("inspect", model, *loading, "--layers", "0"))
    assert words[:4] == ["eval", str(model), "--task", "world-facts"]
    assert words[-6:] == ["--device", "cpu", "--dtype", "float32", "--family", str(family_file)]

    words = next_of(strop_command("eval", model, "-t", task, "--shots", "1", *loading))
    assert words[:4] == ["sharpen", str(model), "--task", str(task)]
    assert words[words.index("--shots") + 1] == "1"
    assert words[words.index("--family") + 1] == str(family_file)

    recipe = Recipe.of(strop.load(model)[0], [RankReduction(WeightSite(1, MatrixType.UP), 0.5)]).save(tmp_path / "a b")
    words = next_of(strop_command("inspect", model, "--recipe", recipe, "--layers", "0"))
    assert words == ["eval", str(model), "--task", "TASK", "--recipe", str(recipe)]
    words = next_of(strop_command("bake", model, "--recipe", recipe, "--out", tmp_path / "ba ked"))
    assert words == ["eval", str(tmp_path / "ba ked"), "--task", "TASK"]


@pytest.fixture
def family_file(tmp_path: Path) -> Path:
    """Llama's own description as a user would write it."""
    path = tmp_path / "my family.yaml"
    content = {
        "name": "mine", "model_types": ["llama"], "blocks": "model.layers",
        "matrices": {
            "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
            "output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, strop_command: Any, odd: tuple[Path, Path], tmp_path: Path) -> Any:
    """End a method at once with a gain, and return the words of the next command."""

    def end(command: str, gain: Comparison, *options: object, interventions: Any = None, **changes: Any) -> list[str]:
        edits = [{"method": "m", "layer": 1, "matrix_type": "up"}] if interventions is None else interventions
        given = {"interventions": tuple(edits), "comparison": {"test": gain}, **changes}

        def run(model: Any, tokenizer: Any, task: Any, plan: Any, settings: Any) -> Any:
            result = result_of(command=command, **given)
            return strop.RunOutcome(Recipe.of(model, []), result, ())

        room = "strop.training" if command == "train" else "strop.searching"
        monkeypatch.setattr(f"{room}.{command}", run)
        return next_of(strop_command(command, odd[0], "-t", odd[1], "-o", tmp_path / "my run", *options, "--quiet"))

    return end


GAIN, NONE, HARM = gain_of(0.1, 0.02), gain_of(0.01, 0.02), gain_of(-0.1, 0.02)


@pytest.mark.parametrize("command", ["search", "prune", "sharpen", "train"])
def test_what_gained_is_baked_with_what_the_base_needs(ended: Any, odd: Any, tmp_path: Path, command: str) -> None:
    words = ended(command, GAIN, "--dtype", "float32")
    run = tmp_path / "my run"
    expected = ["bake", str(odd[0]), "--recipe", str(run / "recipe"), "--out", str(run / "model"), "--dtype", "float32"]
    assert words == expected


@pytest.mark.parametrize("gain", [NONE, HARM], ids=["interval holds 0", "worse"])
@pytest.mark.parametrize(
    ("command", "other"), [("search", "sharpen"), ("prune", "sharpen"), ("train", "train"), ("sharpen", "train")]
)
def test_what_gained_nothing_is_not_baked_but_another_method_tried(
    ended: Any, odd: Any, tmp_path: Path, command: str, other: str, gain: Comparison
) -> None:
    text = tmp_path / "my notes.txt"
    text.write_text("The city of Lyon is in France. " * 80)
    words = ended(command, gain, "--drift-text", text, "--guard", f"{text}:2%", "--guard", "drift:0.5", "--shots", "1")
    assert words[:4] == [other, str(odd[0]), "--task", str(odd[1])]
    assert words[words.index("--out") + 1] == str(tmp_path / f"my run-{other}")
    assert words[words.index("--drift-text") + 1] == str(text)
    assert words[words.index("--shots") + 1] == "1"
    assert [words[index + 1] for index, word in enumerate(words) if word == "--guard"] == [f"{text}:2%", "drift:0.5"]
    assert ("--method" in words) == (other == "train")
    assert "bake" not in words


def test_no_two_methods_that_gained_nothing_recommend_each_other(ended: Any, odd: Any, tmp_path: Path) -> None:
    command, options, tried = "search", [], []
    while command in ("search", "prune", "sharpen", "train"):
        assert (command, options) not in tried
        tried.append((command, options))
        words = ended(command, NONE, *options)
        command = words[0]
        options = ["--method", words[words.index("--method") + 1]] if "--method" in words else []
    assert [own for own, _ in tried] == ["search", "sharpen", "train"]
    assert words == ["eval", str(odd[0]), "--task", str(odd[1]), "--shots", "5"]
    assert ended("train", NONE, "--method", "spectrum", "--shots", "3")[-1] == "6"


def test_where_no_example_can_be_shown_the_task_is_looked_at(ended: Any, odd: Any) -> None:
    written = yaml.safe_load(odd[1].read_text())
    odd[1].write_text(yaml.safe_dump({**written, "splits": {"select": 0.5, "test": 0.5, "seed": 0}}))
    assert ended("sharpen", NONE) == ["task", "check", str(odd[1]), "--model", str(odd[0])]


def test_an_empty_recipe_is_not_baked(ended: Any) -> None:
    assert ended("search", Comparison(0.0, (0.0, 0.0), 1.0, 0, 0), interventions=[])[0] == "sharpen"


def test_what_depends_on_a_place_is_evaluated_with_its_drift_text(ended: Any, odd: Any, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("The city of Lyon is in France. " * 80)
    edits = [{"method": "loreft", "layer": 1, "stream": "block"}]
    words = ended("train", GAIN, "--drift-text", text, interventions=edits)
    assert words[:2] == ["eval", str(odd[0])]
    assert words[words.index("--drift-text") + 1] == str(text)
    assert words[-2:] == ["--recipe", str(tmp_path / "my run" / "recipe")]


def test_a_name_that_is_taken_is_not_given_again(
    strop_command: Callable[..., Any],
    ended: Any,
    odd: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = next_of(strop_command("eval", odd[0], "-t", odd[1], "-q"))
    assert words[words.index("--out") + 1] == "RUN"
    (tmp_path / "RUN").mkdir()
    words = next_of(strop_command("eval", odd[0], "-t", odd[1], "-q"))
    assert words[words.index("--out") + 1] == "RUN-2"
    (tmp_path / "my run-sharpen").mkdir()
    words = ended("search", NONE)
    assert words[words.index("--out") + 1] == str(tmp_path / "my run-sharpen-2")
