"""`strop task check`: a table for a person, JSON for a script, and an exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strop.tasks import check_task


def rows_of(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"The city of {'Lyon' * (i + 1)} is in", "answer": (" France", " Brazil")[i % 2]}
        for i in range(count)
    ]


def test_a_task_that_fits_is_shown(strop_command: Callable[..., Any], write_task: Callable[..., Path]) -> None:
    path = write_task(rows_of(10))
    outcome = strop_command("task", "check", path)
    assert outcome.code == 0
    for part in (
        "made: score exact, 10 examples",
        "select",
        "test",
        "prompt and answer, parted by |:",
        "' France' 50.0 %",
    ):
        assert part in outcome.out
    assert outcome.out.endswith(f"Next: strop eval MODEL --task {path}\n")
    apart = path.rename(path.with_name("my facts.yaml"))
    assert strop_command("task", "check", apart).out.endswith(f"Next: strop eval MODEL --task '{apart}'\n")


def test_bad_rows_are_shown_and_the_status_is_one(
    strop_command: Callable[..., Any], write_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = rows_of(10)
    rows[1]["answer"] = rows[4]["answer"] = ""
    outcome = strop_command("task", "check", write_task(rows))
    assert (outcome.code, outcome.err) == (1, "")
    assert "2 rows cannot be used:\n" in outcome.out
    assert (
        f"{tmp_path / 'data.jsonl'}, rows 2, 5: the answer is empty; fill its column or drop the row.\n" in outcome.out
    )
    assert "Next:" not in outcome.out
    as_json = strop_command("task", "check", write_task(rows), "--json")
    assert (as_json.code, as_json.json["fits"], as_json.json["tokens"]) == (1, False, None)
    assert [(row["row"], row["problem"]) for row in as_json.json["bad"]] == [
        (2, "the answer is empty; fill its column or drop the row."),
        (5, "the answer is empty; fill its column or drop the row."),
    ]


def test_tokens_around_the_border_are_shown(
    strop_command: Callable[..., Any], write_task: Callable[..., Path], tiny_folder: Path
) -> None:
    folder, path = tiny_folder, write_task(rows_of(10))
    outcome = strop_command("task", "check", path, "--model", folder, "--quiet")
    assert outcome.code == 0, outcome.err
    assert "its tokens around the border: " in outcome.out
    assert "answers: " in outcome.out
    tokens = strop_command("task", "check", path, "--model", folder, "--json", "--quiet").json["tokens"]
    assert tokens["longest"] == 128
    assert "".join(tokens["after"]).replace("Ġ", " ") in (" France", " Brazil")
    assert "".join(tokens["before"]).replace("Ġ", " ").endswith("is in")
    assert tokens["bad"] == []


def test_rows_that_are_too_long_for_the_model_are_all_named(
    strop_command: Callable[..., Any], write_task: Callable[..., Path], tiny_folder: Path
) -> None:
    rows = rows_of(10)
    for index in (3, 7):
        rows[index]["prompt"] = "The city of Lyon is in " * 60
    rows[7]["prompt"] += "and"
    outcome = strop_command("task", "check", write_task(rows), "--model", tiny_folder, "--json", "--quiet")
    assert outcome.code == 1
    found = json.loads(outcome.out)["tokens"]["bad"]
    assert len(found) == 2
    assert all("do not fit the model's context of 128; shorten the row." in sentence for sentence in found)


def test_a_task_that_cannot_be_read_is_one_sentence(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("name: made\nname: made\n")
    assert "the key name stands twice; keep one." in refused("task", "check", tmp_path / "t.yaml")


def test_blanks_and_words_that_spoil_a_border_are_told(
    strop_command: Callable[..., Any], write_task: Callable[..., Path], tiny_folder: Path
) -> None:
    """Of a spreadsheet's columns; a prompt that ends in a space needs the model's tokens to be seen."""
    rows = rows_of(10)
    rows[2]["answer"], rows[3]["answer"], rows[4]["answer"] = "  France", " Brazil ", "France"
    outcome = strop_command("task", "check", write_task(rows))
    assert outcome.code == 0
    assert (
        "2 answers have blanks to spare, such as '  France' (row 3); trim the column, {{ COLUMN|trim }}\n"
        in outcome.out
    )
    assert (
        "1 answer follows the prompt without a space, such as 'onLyonLyonLyon is in|France' (row 5); begin"
        in outcome.out
    )
    for row in rows:
        row["prompt"], row["answer"] = f"{row['prompt']} ", row["answer"].strip()
    path = write_task([*rows, rows[0]])
    outcome = strop_command("task", "check", path, "--model", tiny_folder, "--device", "cpu", "--quiet")
    assert "the prompt's last token melts into the answer; begin the answer with the space, and end" in outcome.out
    assert "(10 rows in all)" in outcome.out
    assert "1 row repeats an earlier prompt and answer; each is kept once" in outcome.out
    assert outcome.out.endswith(f"Next: strop eval {tiny_folder} --task {path} --device cpu\n")


def test_labels_and_operators_have_no_words_to_part() -> None:
    labels = [{"prompt": f"text {n}", "answer": ("bad", "good")[n % 2]} for n in range(8)]
    assert check_task({"name": "l", "data": labels, "labels": ["bad", "good"], "score": "label"}).glued == ()
    assert check_task([{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(8)]).glued == ()
    assert check_task([{"prompt": f"東京{n}都", "answer": "です"} for n in range(8)]).glued == ()
