"""What a person gets wrong: one sentence that names what, where and the remedy, and the right exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def search_call(tiny_folder: Path, facts: Path, tmp_path: Path) -> list[object]:
    return ["search", tiny_folder, "--task", facts, "--out", tmp_path / "run"]


def test_a_misspelt_model_is_named(refused: Any, facts: Path, tmp_path: Path) -> None:
    for name, said in (
        (tmp_path / "no-model", "is not there; give a folder with a config.json, a hub id, or"),
        ("smollm2-135", "There is no model 'smollm2-135': it is neither a folder here nor a zoo name (smollm2-135m)"),
        (facts, "is a file"),
        (tmp_path, "holds no config.json"),
    ):
        for command in (["inspect", name], ["eval", name, "--task", facts]):
            message = refused(*command)
            assert said in message
            assert str(name) in message


def test_a_misspelt_zoo_name_lists_the_zoo(refused: Any) -> None:
    assert "smollm2-135m" in refused("pull", "smolm2", code=2)


def test_a_misspelt_task_is_named_before_a_model_is_loaded(refused: Any, tmp_path: Path) -> None:
    message = refused("eval", "no-such-model-either", "--task", "world-fact")
    assert "There is no task 'world-fact'" in message
    assert (
        "int-mult, int-sum, mawps, openbookqa, piqa, rte, siqa, svamp, winogrande, world-facts, world-facts-all"
        in message
    )
    assert "cannot be read: No such file" in refused("eval", "x", "--task", tmp_path / "gone.yaml")


def test_a_row_that_does_not_fit_is_named(refused: Any, search_call: list[object], facts: Path) -> None:
    with facts.with_name("facts.jsonl").open("a") as data:
        data.write('{"prompt": "The city of Oslo is in"}\n')
    message = refused(*search_call)
    assert "facts.jsonl, row 61" in message
    assert "the row has prompt" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--matrix-types", "lm_head"], "'lm_head' cannot be edited: embeddings and the LM head are left alone"),
        (["--matrix-types", "upp"], "'upp' is not a matrix type; choose among query, key, value"),
        (["--matrix-types", ""], "'' is not a matrix type"),
        (["--layers", "2-9"], "'2-9' names a layer this model has not: it has layers 0 to 2"),
        (["--layers", "two"], "'two' does not name layers; write them as 20-29, as 0,4,8 or as all"),
        (["--layers", "-1"], "'-1' does not name layers"),
        (["--layers", "2-1"], "2-1"),
        (["--layers", ""], "does not name layers"),
        (["--rank-fractions", "1.5"], "lies in [0, 1), not 1.5"),
        (["--rank-fractions", "0.1,x"], "--rank-fractions is a comma-separated list of numbers, not '0.1,x'"),
        (["--subspaces", "1,x"], "--subspaces is a comma-separated list of whole numbers, not '1,x'"),
        (["--subspaces", "2.5"], "--subspaces is a comma-separated list of whole numbers, not '2.5'"),
        (["--subspaces", "0,2"], "subspaces are whole numbers, 1 or more, such as 1,2,4,8 (--subspaces), not 0"),
        (["--partition", "subspace"], "give subspaces as well (--subspaces 1,2,4)"),
        (["--rank-fractions", ""], "--rank-fractions is a comma-separated list of numbers"),
        (["--select-limit", "-3"], "select_limit is 1 or more, not -3"),
        (["--test-limit", "0"], "test_limit is 1 or more, not 0"),
        (["--gradient-examples", "0"], "gradient_examples is 1 or more, not 0"),
        (["--max-edits", "0"], "max_edits is 1 or more, not 0"),
        (["--max-edits", "3"], "--compose greedy"),
        (["--seed", "-1"], "seed is 0 or more, not -1"),
        (["--device", "nonsense"], "--device nonsense cannot be used here"),
        (["--dtype", "nonsense"], "--dtype is one of float32, bfloat16, float16, not 'nonsense'"),
        (["--storage", "nonsense"], "The study storage nonsense cannot be opened"),
    ],
    ids=str,
)
def test_an_option_that_cannot_mean_anything_is_named(
    refused: Any, search_call: list[object], options: list[str], said: str
) -> None:
    assert said in refused(*search_call, *options, code=1 if "--storage" in options else 2)


def test_an_evaluation_is_refused_where_it_cannot_be(refused: Any, tiny_folder: Path, facts: Path) -> None:
    call = ["eval", tiny_folder, "--task", facts]
    assert "A limit is 1 or more examples, not -2" in refused(*call, "--limit", "-2", code=2)
    assert "'dev' is not a split; a task has train, select, test" in refused(*call, "--split", "dev", code=2)
    assert "small-facts has no paraphrases" in refused(*call, "--paraphrases")
    assert "holds no recipe.json" in refused(*call, "--recipe", facts.parent)
    facts.write_text(facts.read_text() + "score: generate\ngenerate: {max_new_tokens: 500}\n")
    assert "500 new ones (generate.max_new_tokens) do not fit the model's context of 128" in refused(*call)
    facts.write_text(facts.read_text().replace("max_new_tokens: 500", "extract: '('"))
    assert "key generate.extract: '(' is not a regular expression" in refused(*call)


@pytest.mark.parametrize("command", ["improve", "search", "prune", "sharpen", "train"])
def test_a_macro_average_without_categories_is_refused_before_a_model_is_loaded(
    refused: Any, facts: Path, tmp_path: Path, command: str
) -> None:
    call = [command, tmp_path / "no-such-model", "--task", facts, "--out", tmp_path / "run", "--objective", "macro"]
    assert "Task small-facts has no categories" in refused(*call, code=2)
    facts.write_text(facts.read_text() + "category: subject\n")
    assert "no-such-model" in refused(*call)


def test_inspecting_what_is_not_there_is_refused(refused: Any, tiny_folder: Path) -> None:
    assert "layers 0 to 2" in refused("inspect", tiny_folder, "--layers", "3", code=2)
    assert "cannot be edited" in refused("inspect", tiny_folder, "--matrix-types", "embed_tokens", code=2)


def write_recipe(strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], out: Path) -> Path:
    assert strop_command("search", tiny_folder, "-t", facts, "-o", out, "-q", *quick).code == 0
    return out / "recipe"


def test_a_recipe_for_another_base_is_refused_with_the_difference(
    refused: Any,
    strop_command: Any,
    tiny: Callable[..., Any],
    small_tokenizer: Any,
    tiny_folder: Path,
    facts: Path,
    quick: list[str],
    tmp_path: Path,
) -> None:
    recipe = write_recipe(strop_command, tiny_folder, facts, quick, tmp_path / "found")
    other, gpt2 = tmp_path / "other", tmp_path / "gpt2"
    for folder, model in ((other, tiny("llama", intermediate_size=64)), (gpt2, tiny("gpt2"))):
        model.save_pretrained(folder)
        small_tokenizer.save_pretrained(folder)
    for model_folder, said in (
        (other, "is not the matrix the recipe was made for"),
        (gpt2, "this model is a GPT2LMHeadModel"),
    ):
        for command in (
            ["eval", model_folder, "--task", facts, "--recipe", recipe],
            ["bake", model_folder, "--recipe", recipe, "--out", tmp_path / "baked"],
        ):
            message = refused(*command)
            assert said in message
            assert "--force" in message
    assert not (tmp_path / "baked").exists()
    assert strop_command("bake", other, "--recipe", recipe, "--out", tmp_path / "baked", "--force", "-q").code == 0


def test_a_run_folder_in_place_of_its_recipe_is_guessed(
    refused: Any, strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    recipe = write_recipe(strop_command, tiny_folder, facts, quick, tmp_path / "found")
    message = refused("bake", tiny_folder, "--recipe", tmp_path / "found", "--out", tmp_path / "baked")
    assert f"Did you mean {recipe}?" in message


def test_baking_into_an_occupied_folder_is_refused_and_destroys_nothing(
    refused: Any, strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    recipe = write_recipe(strop_command, tiny_folder, facts, quick, tmp_path / "found")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("precious")
    assert "is not empty: choose another --out" in refused(
        "bake", tiny_folder, "--recipe", recipe, "--out", occupied, code=2
    )
    assert "is a file" in refused("bake", tiny_folder, "--recipe", recipe, "--out", occupied / "mine.txt", code=2)
    assert [(file.name, file.read_text()) for file in occupied.iterdir()] == [("mine.txt", "precious")]


def test_a_run_folder_in_use_is_refused(
    strop_command: Any, search_call: list[object], quick: list[str], tmp_path: Path
) -> None:
    assert strop_command(*search_call, *quick, "--quiet").code == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    again = strop_command(*search_call, *quick, "--quiet")
    assert (again.code, again.out) == (1, "")
    assert "holds a finished run: go on with it by --resume, or choose another --out" in again.err
    other = strop_command(*search_call, *quick, "--quiet", "--resume", "--seed", "7")
    assert (other.code, other.out) == (1, "")
    assert "seed" in other.err
    assert "resume with the same settings" in other.err
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_per_example_scores_are_written_over_nothing_unasked(
    refused: Any, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "empty"):
        assert "is a folder, and a file is to be written there: name a file." in refused(
            "eval", tiny_folder, "-t", facts, "--out", folder, code=2
        )
    (tmp_path / "scores.json").write_text("mine")
    assert "scores.json is there already: name another file, or overwrite it by --force." in refused(
        "eval", tiny_folder, "-t", facts, "--out", tmp_path / "scores.json", code=2
    )
    assert (tmp_path / "scores.json").read_text() == "mine"
    assert "cannot be written, for" in refused(
        "eval", tiny_folder, "-t", facts, "--out", tmp_path / "scores.json" / "new.json", code=2
    )
    assert "is no ordinary file" in refused("eval", tiny_folder, "-t", facts, "--out", "/dev/null", "--force", code=2)


@pytest.mark.parametrize(
    "call",
    [
        ["inspect", "x", "--nonsense"],
        ["nonsense"],
        ["inspect"],
        ["eval"],
        ["search", "x", "--task", "world-facts"],
        ["bake", "x", "--out", "y"],
    ],
    ids=" ".join,
)
def test_a_call_that_does_not_parse_exits_with_two(strop_command: Any, call: list[str]) -> None:
    outcome = strop_command(*call)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Usage" in outcome.err


def test_a_value_that_does_not_fit_its_option_is_one_sentence(refused: Any) -> None:
    for options, said in (
        (["--stack", "sideways"], "'--stack': 'sideways' is not one of 'encoder', 'decoder', 'cross', 'vision'."),
        (["--strategy", "guess"], "'--strategy': 'guess' is not one of 'gradient', 'exhaustive', 'race', 'data-free'."),
        (
            ["--max-edits", "many"],
            "'--max-edits': Input should be a valid integer, unable to parse string as an integer.",
        ),
    ):
        message = refused("search", "x", "--task", "world-facts", "--out", "y", *options, code=2)
        assert message == f"Invalid value for {said}"


def test_a_damaged_recipe_is_named(
    refused: Any, strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    recipe = write_recipe(strop_command, tiny_folder, facts, quick, tmp_path / "found")
    document = json.loads((recipe / "recipe.json").read_text())
    for damage, said in (
        ("{", "cannot be read as a recipe"),
        (json.dumps({**document, "format": 99}), "upgrade Strop"),
        (json.dumps({**document, "interventions": [{"method": "magic"}]}), "'magic' is not a method"),
    ):
        (recipe / "recipe.json").write_text(damage)
        assert said in refused("eval", tiny_folder, "-t", facts, "--recipe", recipe)
