"""Each command: what it prints for a program, for a person, and what it leaves on disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop import MatrixType, RankReduction, SingularValuePruning, WeightSite
from strop.recipe import Recipe
from strop.tasks import load_task

RESULT_KEYS = [
    "format", "command", "seed", "base_model", "task", "base", "edited", "comparison", "interventions", "cost", "versions",
    "edits", "price", "rivals",
]  # fmt: skip


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the finished run is that the tests of this file copy."""
    return tmp_path_factory.mktemp("once") / "run"


@pytest.fixture
def run(strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], run_once: Path, tmp_path: Path) -> Path:
    """A finished run, of a command that was asked to be quiet."""
    if not run_once.exists():
        outcome = strop_command("search", tiny_folder, "--task", facts, "--out", run_once, "--quiet", *quick)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out
    return shutil.copytree(run_once, tmp_path / "run")


def test_every_command_with_json_prints_json_and_nothing_else(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    run, baked = tmp_path / "run", tmp_path / "baked"
    for arguments in (
        ("inspect", tiny_folder),
        ("eval", tiny_folder, "--task", facts),
        ("search", tiny_folder, "--task", facts, "--out", run, *quick),
        ("eval", tiny_folder, "--task", facts, "--recipe", run / "recipe"),
        ("compare", run, run),
        ("compare", run, run, "--task", facts),
        ("bake", tiny_folder, "--recipe", run / "recipe", "--out", baked),
        ("search", tiny_folder, "--task", facts, "--out", run, *quick, "--resume"),
    ):
        outcome = strop_command(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        assert isinstance(outcome.json, dict)


def test_every_command_is_silent_on_standard_error_where_asked_to_be_quiet(
    strop_command: Any, run: Path, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    """A search too: the run was made by one."""
    for arguments in (
        ("inspect", tiny_folder),
        ("eval", tiny_folder, "--task", facts),
        ("eval", tiny_folder, "--task", facts, "--recipe", run / "recipe"),
        ("compare", run, run / "recipe", "--task", facts),
        ("bake", tiny_folder, "--recipe", run / "recipe", "--out", tmp_path / "baked"),
    ):
        outcome = strop_command(*arguments, "--quiet")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out


def test_a_person_gets_a_table_the_next_command_and_what_is_done_on_standard_error(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    run, baked = tmp_path / "run", tmp_path / "baked"
    for arguments, shown in (
        (
            ("inspect", tiny_folder, "--layers", "0"),
            ["LlamaForCausalLM", "3 layers", "query", "32x32", "Next: strop eval"],
        ),
        (("eval", tiny_folder, "--task", facts), ["small-facts/test", "accuracy", "24", "Next: strop sharpen"]),
        (
            ("search", tiny_folder, "--task", facts, "--out", run, *quick),
            ["held out (test)", "rank reduction to rank", "ain:", "95 % interval", "Next: strop "],
        ),
        (("eval", tiny_folder, "--task", facts, "--recipe", run / "recipe"), ["base", "edited", "ain:", "fixed"]),
        (("bake", tiny_folder, "--recipe", run / "recipe", "--out", baked), ["1 intervention baked in", "Next:"]),
    ):
        outcome = strop_command(*arguments)
        assert outcome.code == 0, outcome.err
        for text in shown:
            assert text in outcome.out
        if arguments[0] == "search":
            assert "no edit: accuracy" in outcome.err
            assert "edit 1:" in outcome.err


def test_inspect_describes_the_model(strop_command: Any, tiny_folder: Path) -> None:
    found = strop_command("inspect", tiny_folder, "--layers", "1-2", "--matrix-types", "up,query", "--json").json
    assert (found["id"], found["architecture"], found["family"]) == (str(tiny_folder), "LlamaForCausalLM", "Llama")
    assert (found["layers"], found["hidden_size"], found["heads"], found["key_value_heads"]) == (3, 32, 4, 2)
    assert found["tied_embeddings"] is False
    assert [(row["layer"], row["matrix_type"]) for row in found["matrices"]] == [
        (1, "up"), (1, "query"), (2, "up"), (2, "query"),
    ]  # fmt: skip
    assert found["matrices"][0]["shape"] == [48, 32]
    assert 1 < found["matrices"][0]["spectrum"]["effective_rank"] <= 32
    bare = strop_command("inspect", tiny_folder, "--no-spectra", "--json").json
    assert len(bare["matrices"]) == 21
    assert bare["matrices"][0]["spectrum"] is None


def test_inspect_names_every_matrix_whole_on_80_columns(
    strop_command: Any, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = strop_command("inspect", tiny_folder, "--layers", "1").out
    assert all(f"1.{name}_proj" in shown for name in ("self_attn.q", "self_attn.o", "mlp.gate", "mlp.down"))
    assert "…" not in shown


def test_inspect_shows_what_a_recipe_does_to_each_matrix(strop_command: Any, tiny_folder: Path, tmp_path: Path) -> None:
    model, _ = strop.load(str(tiny_folder))
    edits = [
        RankReduction(WeightSite(1, MatrixType.UP), 0.25),
        *(SingularValuePruning(WeightSite(1, MatrixType.KEY, head=head), (0, 2)) for head in (0, 1)),
        SingularValuePruning(WeightSite(1, MatrixType.UP), (1,)),
    ]
    recipe = Recipe.of(model, edits).save(tmp_path / "recipe")
    found = strop_command("inspect", tiny_folder, "--layers", "1", "--recipe", recipe, "--json").json
    by_type = {row["matrix_type"]: row for row in found["matrices"]}
    assert {name: row["edits"] for name, row in by_type.items() if row["edits"]} == {
        "up": "rank 8, 1 removed",
        "key": "4 removed",
    }
    assert by_type["up"]["spectrum"]["effective_rank"] < 8
    shown = strop_command("inspect", tiny_folder, "--layers", "1", "--recipe", recipe)
    assert shown.code == 0
    assert "edits" in shown.out
    assert "key: 4 of 16 singular values removed in layer 1" in shown.out
    assert f"--recipe {recipe}" in shown.out


def test_a_run_holds_what_the_contract_says(run: Path, facts: Path, tiny_folder: Path) -> None:
    names = {file.name for file in run.iterdir()}
    kept = {"answers.jsonl", "spectra.json"}
    assert names == {"config.json", "environment.json", "study.db", "result.json", "recipe", "log.txt", *kept}
    result = json.loads((run / "result.json").read_text())
    assert list(result) == RESULT_KEYS
    assert (result["format"], result["command"], result["seed"]) == (1, "search", 0)
    assert set(result["base_model"]) == {"id", "fingerprint"}
    assert result["base_model"]["id"] == tiny_folder.name
    assert result["task"] == {"name": "small-facts", "counts": {"select": 24, "test": 24}}
    for side in ("base", "edited"):
        assert set(result[side]) == {"select", "test"}
        for figures in result[side].values():
            assert set(figures) == {"accuracy", "loss", "count"}
    assert set(result["comparison"]) == {"test"}
    assert set(result["comparison"]["test"]) == {"gain", "ci95", "p_value", "fixed", "broken"}
    (entry,) = result["interventions"]
    assert set(entry) == {"method", "layer", "matrix_type", "rank_fraction", "rank"}
    assert set(result["cost"]) == {"wall_seconds", "evaluations", "tokens", "peak_rss_bytes"}
    assert result["cost"]["peak_rss_bytes"] > 10**7
    assert {"python", "strop", "torch", "transformers"} <= set(result["versions"])


def test_a_run_holds_a_recipe_that_fits_the_model(run: Path, tiny_folder: Path) -> None:
    assert {file.name for file in (run / "recipe").iterdir()} == {"recipe.json", "README.md"}
    document = json.loads((run / "recipe" / "recipe.json").read_text())
    assert set(document) == {"format", "base", "interventions", "matrices", "provenance"}
    assert document["interventions"] == json.loads((run / "result.json").read_text())["interventions"]
    model, _ = strop.load(str(tiny_folder))
    strop.Recipe.load(run / "recipe").check(model)


def test_eval_agrees_with_the_search_that_found_the_recipe(
    strop_command: Any, run: Path, tiny_folder: Path, facts: Path
) -> None:
    result = json.loads((run / "result.json").read_text())
    found = strop_command("eval", tiny_folder, "-t", facts, "--recipe", run / "recipe", "--json").json
    assert found["price"] == result["price"]
    assert set(found) == {
        "format", "command", "base_model", "task", "recipes", "base", "edited", "comparison", "rivals", "price",
    }  # fmt: skip
    assert found["task"] == {"name": "small-facts", "score": "exact", "split": "test"}
    assert found["recipes"] == [str(run / "recipe")]
    assert found["base_model"] == result["base_model"]
    for side in ("base", "edited"):
        assert found[side]["accuracy"] == result[side]["test"]["accuracy"]
        assert found[side]["loss"] == pytest.approx(result[side]["test"]["loss"], rel=1e-4)
    assert found["comparison"] == result["comparison"]["test"]


def test_eval_writes_the_score_of_every_example(
    strop_command: Any, run: Path, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "scores.json"
    arguments = ["--split", "select", "--limit", 5, "--out", out, "--json"]
    out.parent.mkdir()
    out.write_text("of an earlier model")
    outcome = strop_command("eval", tiny_folder, "-t", facts, "--recipe", run / "recipe", *arguments, "--force")
    written = json.loads(out.read_text())
    examples = written.pop("examples")
    assert written == outcome.json
    assert [entry["prompt"] for entry in examples] == [e.prompt for e in load_task(facts).examples("select", limit=5)]
    for side in ("base", "edited"):
        losses = [entry[side]["loss"] for entry in examples]
        assert sum(losses) / 5 == pytest.approx(written[side]["loss"])
        assert sum(entry[side]["correct"] for entry in examples) / 5 == written[side]["accuracy"]
        assert written[side]["count"] == 5
    assert examples[0]["base"]["loss"] != examples[0]["edited"]["loss"]


def test_eval_asks_paraphrases_too(strop_command: Any, tiny_folder: Path, facts: Path) -> None:
    rows = [json.loads(line) for line in facts.with_name("facts.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "others": ["In which country is it?"]}) for row in rows]
    facts.with_name("facts.jsonl").write_text("\n".join(lines) + "\n")
    facts.write_text(facts.read_text() + "paraphrases: others\n")
    outcome = strop_command("eval", tiny_folder, "-t", facts, "--paraphrases", "--json")
    assert outcome.json["paraphrases"]["base"]["count"] == 24
    assert "paraphrases right" in strop_command("eval", tiny_folder, "-t", facts, "--paraphrases").out


def test_eval_of_a_task_scored_by_loss_shows_perplexity(strop_command: Any, tiny_folder: Path, facts: Path) -> None:
    facts.write_text(facts.read_text() + "score: perplexity\n")
    found = strop_command("eval", tiny_folder, "-t", facts, "--json").json
    assert found["base"]["accuracy"] is None
    assert found["base"]["perplexity"] > 1
    assert "perplexity" in strop_command("eval", tiny_folder, "-t", facts).out


def test_a_search_of_a_task_scored_by_loss_prints_nats(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    facts.write_text(facts.read_text() + "score: perplexity\n")
    outcome = strop_command("search", tiny_folder, "-t", facts, "-o", tmp_path / "run", *quick)
    assert outcome.code == 0
    assert "nats per token" in outcome.out
    assert "accuracy" not in outcome.out


def test_a_baked_checkpoint_is_the_edited_model(
    strop_command: Any, run: Path, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    baked = tmp_path / "baked"
    outcome = strop_command("bake", tiny_folder, "--recipe", run / "recipe", "--out", baked, "--json")
    assert set(outcome.json) == {"folder", "bytes", "interventions"}
    assert outcome.json["bytes"] == sum(file.stat().st_size for file in baked.iterdir())
    alone = strop_command("eval", baked, "-t", facts, "--json").json["base"]
    edited = strop_command("eval", tiny_folder, "-t", facts, "--recipe", run / "recipe", "--json").json["edited"]
    assert alone["accuracy"] == edited["accuracy"]
    assert alone["loss"] == pytest.approx(edited["loss"], rel=1e-5)


def test_a_parquet_task_is_read_without_a_word(
    strop_command: Any, tiny_folder: Path, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    rows = [json.loads(line) for line in facts.with_name("facts.jsonl").read_text().splitlines()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), facts.with_name("facts.parquet"))
    facts.write_text(facts.read_text().replace("facts.jsonl", "facts.parquet"))
    outcome = strop_command("eval", tiny_folder, "-t", facts, "--json", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["base"]["count"] == 24


COMMANDS = [
    "pull", "inspect", "eval", "improve", "search", "work", "prune", "sharpen", "train", "compare", "report", "bake", "export",
    "demo", "task check",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example_and_its_options(
    strop_command: Any, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    outcome = strop_command(*command.split(), "--help")
    assert outcome.code == 0
    assert f"strop {command} " in outcome.out
    assert "Example" in outcome.out
    assert "--json" in outcome.out
    assert "--quiet" in outcome.out
    assert strop_command(*command.split(), "-h").out == outcome.out


def test_the_root_lists_every_command_and_the_version(strop_command: Any) -> None:
    shown = strop_command("--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert f" {command.partition(' ')[0]} " in shown.out
    assert strop_command("--version").out == f"{strop.__version__}\n"


def test_every_command_takes_json_and_quiet() -> None:
    import typer

    from strop.cli import app

    commands: dict[str, Any] = {**typer.main.get_command(app).commands}  # type: ignore[attr-defined]
    groups = {name: commands.pop(name).commands for name in ("task",)}
    commands |= {f"{name} {own}": command for name, group in groups.items() for own, command in group.items()}
    assert sorted(commands) == sorted(COMMANDS)
    for command in commands.values():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--quiet"} <= options


@pytest.mark.real
def test_pull_finds_the_real_model_in_the_cache_at_once(strop_command: Callable[..., Any], real: Any) -> None:
    outcome = strop_command("pull", "smollm2-135m", "--json", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert set(outcome.json) == {"name", "folder", "license", "description"}
    assert (Path(outcome.json["folder"]) / "config.json").is_file()
    assert "Next: strop inspect smollm2-135m" in strop_command("pull", "smollm2-135m").out
