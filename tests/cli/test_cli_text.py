"""A text in the place of a task, and nothing at all: what each command says and takes, and what it proposes next."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.results import result_of

import strop
from strop.recipe import Recipe

QUICK = ["--quiet", "--no-rivals"]
FREE = ["--strategy", "data-free", "--top-matrices", "2", "--layers", "1", *QUICK]


@pytest.fixture(scope="module")
def roomy_folder(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any], small_tokenizer: Any) -> Path:
    """A tiny Llama that can read a whole passage."""
    folder = tmp_path_factory.mktemp("roomy") / "roomy-llama"
    tiny("llama", max_position_embeddings=512, num_hidden_layers=2).save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "my notes.txt"
    path.write_text("\n".join(f"The city of Lyon is in France on day {day}." for day in range(160)), encoding="utf-8")
    return path


def next_of(outcome: Any) -> list[str]:
    """Return the words of the next command, as a shell reads them."""
    assert outcome.code == 0, outcome.err
    return shlex.split(outcome.out.splitlines()[-1].removeprefix("Next: strop "))


def test_a_search_on_a_text_runs_is_read_back_and_names_what_to_try(
    strop_command: Callable[..., Any], roomy_folder: Path, notes: Path, tmp_path: Path
) -> None:
    call = ["search", roomy_folder, "--text", notes, "--out", tmp_path / "run", *FREE]
    found = strop_command(*call, "--json")
    assert found.code == 0, found.err
    result = found.json
    assert result["task"]["name"] == "my notes.txt"
    assert result["base"]["test"]["perplexity"] > 1
    assert result["comparison"]["test"]["gain"] == pytest.approx(
        result["base"]["test"]["loss"] - result["edited"]["test"]["loss"], abs=1e-6
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plan"]["strategy"] == "data-free"
    words = next_of(strop_command(*call, "--resume"))
    if words[0] == "sharpen":
        assert words[:6] == ["sharpen", str(roomy_folder), "--text", str(notes), "--out", str(tmp_path / "run-sharpen")]
    else:
        assert words[:3] == ["bake", str(roomy_folder), "--recipe"]
    notes.write_text(notes.read_text() + " And one more line of it." * 20)
    (tmp_path / "run" / "result.json").unlink()
    other = strop_command(*call, "--resume")
    assert other.code == 1
    assert "run began with other examples" in other.err


def test_with_neither_it_goes_by_what_the_model_writes_itself(
    strop_command: Callable[..., Any], roomy_folder: Path, tmp_path: Path
) -> None:
    outcome = strop_command("search", roomy_folder, "--out", tmp_path / "run", *FREE)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["task"] == {"name": "own-text", "counts": {"select": 4, "test": 4}}
    assert "roomy-llama on own-text" in outcome.out
    words = next_of(outcome)
    if words[0] != "bake":
        expected = ["search", str(roomy_folder), "--text", "FILE", "--strategy", "data-free"]
        assert [word for word in words if word not in ("--out", str(tmp_path / "run-search"))] == expected


def test_methods_that_gained_nothing_on_a_text_lead_to_a_look_at_the_model(
    strop_command: Callable[..., Any],
    roomy_folder: Path,
    notes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_gain(model: Any, tokenizer: Any, task: Any, plan: Any, settings: Any) -> Any:
        command = next(name for name in ("search", "sharpen", "train") if name in type(plan).__name__.lower())
        return strop.RunOutcome(Recipe.of(model, []), result_of(command=command, gain=0.0), ())

    for room, command in (("searching", "search"), ("searching", "sharpen"), ("training", "train")):
        monkeypatch.setattr(f"strop.{room}.{command}", without_gain)
    words, tried = ["search"], []
    while words[0] != "inspect":
        tried.append(words[0])
        more = ["--method", words[words.index("--method") + 1]] if "--method" in words else []
        words = next_of(
            strop_command(tried[-1], roomy_folder, "--text", notes, "--out", tmp_path / "run", *more, "--quiet")
        )
        assert words[0] == "inspect" or words[1:4] == [str(roomy_folder), "--text", str(notes)]
    assert tried == ["search", "sharpen", "train"]
    assert words == ["inspect", str(roomy_folder)]


@pytest.mark.parametrize("command", ["prune", "train"])
def test_other_methods_take_a_text_too(
    strop_command: Callable[..., Any], roomy_folder: Path, notes: Path, tmp_path: Path, command: str
) -> None:
    few = {
        "prune": ["--iterate", "1", "--fraction", "0.1", "--effect-examples", "4"],
        "train": ["--epochs", "1", "--layers", "1", "--rank", "1"],
    }[command]
    call = [command, roomy_folder, "--text", notes, "--out", tmp_path / "run", *few, "--select-limit", "4", *QUICK]
    found = strop_command(*call, "--json")
    assert found.code == 0, found.err
    assert found.json["task"]["name"] == "my notes.txt"


def test_eval_says_how_well_a_text_is_predicted(
    strop_command: Callable[..., Any], roomy_folder: Path, notes: Path
) -> None:
    found = strop_command("eval", roomy_folder, "--text", notes, "--json", "--quiet")
    assert found.code == 0, found.err
    assert found.json["task"] == {"name": "my notes.txt", "score": "perplexity", "split": "test"}
    assert found.json["base"]["perplexity"] > 1
    words = next_of(strop_command("eval", roomy_folder, "--text", notes, "--limit", "2", "--quiet"))
    assert words[:4] == ["sharpen", str(roomy_folder), "--text", str(notes)]


@pytest.mark.parametrize("command", ["eval", "search", "sharpen", "improve"])
def test_with_neither_all_else_says_what_to_give(refused: Any, tmp_path: Path, command: str) -> None:
    out = ["--out", tmp_path / "run"] if command != "eval" else []
    assert refused(command, tmp_path / "no-such-model", *out, code=2) == (
        "Say what to be good at: --task TASK, a task file or a built-in task, or --text FILE, some pages to predict; only "
        "strop search --strategy data-free goes without."
    )


def test_a_text_that_cannot_be_used_is_named_before_a_model_is_loaded(refused: Any, tmp_path: Path) -> None:
    call = ["search", tmp_path / "no-such-model", "--out", tmp_path / "run", "--strategy", "data-free", "--text"]
    path = tmp_path / "notes.txt"
    assert refused(*call, path, code=2) == f"The text {path} cannot be read: No such file or directory."
    path.write_bytes("Grüße".encode("latin-1") * 4000)
    assert refused(*call, path, code=2) == f"The text {path} cannot be read: it is not UTF-8 text."
    path.write_text(" \n")
    assert refused(*call, path, code=2) == "The text notes.txt is empty; give a file with some pages of plain text."
    path.write_text("Some words. " * 50)
    assert "different passages of about 500 bytes" in refused(*call, path, code=2)
    both = refused(*call, path, "--task", "world-facts", code=2)
    assert both == "--task and --text both say what to be good at: give one of them."
    shots = refused(*call[:-1], "--shots", "2", code=2)
    assert shots.startswith("Task own-text has score: perplexity, and shots go with answers that are written")
