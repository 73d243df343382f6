"""What `search`, `prune` and `train` share: where they begin, what they may spend and harm, and whose folder it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.cli.duration import parse_seconds
from strop.errors import UsageError
from strop.proving import Claim
from strop.runs import LOCK_FILE, locked


@pytest.fixture
def search_call(tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path) -> list[object]:
    return ["search", tiny_folder, "--task", facts, "--out", tmp_path / "run", *quick]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A text to guard."""
    path = tmp_path / "notes.txt"
    path.write_text("The city of Lyon is in France and the city of Curitiba is in Brazil. " * 40, encoding="utf-8")
    return path


def test_json_on_standard_output_is_the_result_file_and_a_finished_run_is_shown_again(
    strop_command: Any, search_call: list[object], tmp_path: Path
) -> None:
    outcome = strop_command(*search_call, "--json", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json == json.loads((tmp_path / "run" / "result.json").read_text())
    again = strop_command(*search_call, "--json", "--resume")
    assert again.json == outcome.json
    assert "is finished already; nothing was repeated" in again.err


def test_a_search_begins_with_another_ones_recipe(
    strop_command: Any, search_call: list[object], tmp_path: Path
) -> None:
    first = strop_command(*search_call, "--json", "--quiet").json
    assert first["interventions"]
    second = strop_command(
        *search_call[:4], "--out", tmp_path / "second", *search_call[6:], "--after", tmp_path / "run" / "recipe",
        "--with-factors", "--json", "--quiet",
    )  # fmt: skip
    assert second.code == 0, second.err
    assert second.json["interventions"][:1] == first["interventions"]
    assert second.json["start"]["test"]["accuracy"] == first["edited"]["test"]["accuracy"]
    assert "test_over_start" in second.json["comparison"]
    assert (tmp_path / "second" / "recipe" / "tensors.safetensors").is_file()


def test_a_training_puts_the_factors_of_what_it_begins_with_into_its_recipe(
    strop_command: Any, tiny_folder: Path, even_facts: Path, quick: list[str], tmp_path: Path
) -> None:
    found, learned = tmp_path / "found", tmp_path / "learned"
    assert strop_command("search", tiny_folder, "-t", even_facts, "-o", found, "-q", *quick).code == 0
    trained = strop_command(
        "train", tiny_folder, "-t", even_facts, "-o", learned, "--epochs", "1", "--after", found / "recipe",
        "--with-factors", "--quiet",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    from safetensors import safe_open

    with safe_open(learned / "recipe" / "tensors.safetensors", "pt") as tensors:
        assert any(name.startswith("0.") for name in tensors.keys())  # noqa: SIM118


def test_a_search_stops_after_the_evaluations_it_may_spend(
    strop_command: Any, search_call: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finished: list[object] = []
    real = Claim.finish
    monkeypatch.setattr(Claim, "finish", lambda self, trial: (real(self, trial), finished.append(trial.key)))
    outcome = strop_command(*search_call, "--max-evaluations", "3", "--no-rivals", "--json")
    assert outcome.code == 0, outcome.err
    assert len(finished) == 3
    assert outcome.json["cost"]["evaluations"] == 3 + (2 if outcome.json["interventions"] else 1)
    assert "budget of 3 evaluations is spent" in outcome.err
    assert "budget of 3 evaluations is spent" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("command", ["search", "prune", "sharpen"])
def test_a_choice_without_time_is_no_edit(
    strop_command: Any, tiny_folder: Path, facts: Path, tmp_path: Path, command: str
) -> None:
    call = [command, tiny_folder, "--task", facts, "--out", tmp_path / "run", "--json"]
    outcome = strop_command(*call, "--time-limit", "0.001s", "--no-rivals")
    assert outcome.code == 0, outcome.err
    assert outcome.json["interventions"] == []
    assert outcome.json["cost"]["evaluations"] == 2
    assert "budget of 0.001 s is spent" in outcome.err


def test_a_guard_that_holds_is_told_with_its_figures(
    strop_command: Any, search_call: list[object], notes: Path, facts: Path
) -> None:
    other = facts.with_name("others.yaml")
    other.write_text(facts.read_text().replace("small-facts", "others"))
    guards = ["--guard", f"{notes}:10000%", "--guard", f"{other}:100"]
    found = strop_command(*search_call, *guards, "--json", "--quiet")
    assert found.code == 0, found.err
    text, task = found.json["guards"]
    assert (text["name"], text["unit"], text["bound"], text["bound_unit"]) == ("notes.txt", "perplexity", 100, "share")
    assert (task["name"], task["unit"], task["bound"], task["bound_unit"]) == ("others", "accuracy", 1, "points")
    assert text["harm"] == pytest.approx(text["edited"] / text["base"] - 1)
    assert task["harm"] == pytest.approx(task["base"] - task["edited"])
    assert found.json["interventions"]
    shown = strop_command(*search_call, *guards, "--resume").out
    assert "Guard notes.txt: perplexity " in shown
    assert "Guard others: accuracy " in shown
    assert "at most 100 allowed" in shown


def test_a_guard_refuses_what_would_harm_and_says_so(
    strop_command: Any, search_call: list[object], notes: Path
) -> None:
    free = strop_command(*search_call[:4], "--out", notes.with_name("free"), *search_call[6:], "--json", "--quiet").json
    found = strop_command(*search_call, "--guard", f"{notes}:0%", "--json")
    assert found.code == 0, found.err
    assert all(reading["harm"] <= 0 for reading in found.json["guards"])
    assert free["interventions"] != found.json["interventions"]
    assert "refused by the guard on notes.txt: perplexity " in found.err


@pytest.mark.parametrize(
    ("option", "said", "code"),
    [
        (["--guard", "{notes}"], "is no guard: write drift:0.05 for nats per token away from the base, FILE.txt:2%", 2),
        (["--guard", "{notes}:lots"], "is no guard: write drift:0.05", 2),
        (["--guard", ":2%"], "':2%' is no guard", 2),
        (["--guard", "{notes}:1"], "notes.txt is a text file, whose bound is written with a per cent sign (1%)", 2),
        (["--guard", "{notes}:-1%"], "The guard on notes.txt has a bound of 0 or more, not -0.01", 2),
        (["--guard", "{notes}:nan%"], "The guard on notes.txt has a bound of 0 or more, not nan", 2),
        (["--guard", "{folder}/gone.txt:2%"], "gone.txt cannot be read: No such file or directory", 2),
        (["--guard", "{folder}/empty.txt:2%"], "The guard's text empty.txt is empty", 2),
        (["--guard", "{folder}/short.txt:2%"], "short.txt", 2),
        (["--guard", "boolqq:1"], "There is no task 'boolqq'", 1),
        (["--time-limit", "soon"], "--time-limit is a duration such as 90s, 30m or 1h30m, not 'soon'", 2),
        (["--time-limit", ""], "--time-limit is a duration", 2),
        (["--time-limit", "0s"], "A budget of seconds is above 0, not 0", 2),
        (["--max-evaluations", "0"], "A budget of evaluations is 1 or more, not 0", 2),
        (["--after", "{folder}"], "is not a recipe: it holds no recipe.json", 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bound_that_cannot_be_kept_is_named(
    refused: Callable[..., str], search_call: list[object], notes: Path, option: list[str], said: str, code: int
) -> None:
    notes.with_name("empty.txt").write_text(" \n")
    notes.with_name("short.txt").write_text("A")
    words = [word.format(notes=notes, folder=notes.parent) for word in option]
    assert said in refused(*search_call, *words, code=code)


def test_a_run_that_is_being_worked_on_is_left_alone(
    strop_command: Any, search_call: list[object], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with locked(run):
        for resume in ([], ["--resume"]):
            second = strop_command(*search_call, *resume, "--quiet")
            assert (second.code, second.out) == (1, "")
            assert second.err.startswith(f"Error: {run} is being worked on by process ")
            assert second.err.endswith("; wait for it, or choose another --out.\n")
            assert second.err.count("\n") == 1
        assert [entry.name for entry in run.iterdir()] == [LOCK_FILE]
    assert strop_command(*search_call, "--quiet").code == 0
    assert not (run / LOCK_FILE).exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("1h30m", 5400), ("1h2m3s", 3723)]
)
def test_a_duration_reads_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_seconds(text, "--time-limit") == seconds


@pytest.mark.parametrize("text", ["1h30", "2m5", "x", "", "-5", "1 h", "h"])
def test_a_duration_that_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--time-limit is a duration such as 90s, 30m or 1h30m"):
        parse_seconds(text, "--time-limit")


def test_a_run_that_found_nothing_proposes_another_method_and_no_checkpoint(
    strop_command: Callable[..., Any], search_call: list[object], tmp_path: Path
) -> None:
    outcome = strop_command(*search_call, "--max-evaluations", "1", "--quiet")
    assert outcome.code == 0, outcome.err
    assert "The budget was spent before an edit was found" in outcome.out
    assert "The budget ended the choice" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("Next: strop sharpen ")
    assert "strop bake" not in outcome.out


def test_a_models_folder_is_not_taken_for_a_run(
    strop_command: Callable[..., Any], search_call: list[object], tiny_folder: Path
) -> None:
    call = [tiny_folder if str(word).endswith("run") else word for word in search_call]
    outcome = strop_command(*call, "--quiet")
    assert outcome.code == 1
    assert "is there already and is not a run: choose another --out" in outcome.err
