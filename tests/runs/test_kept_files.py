"""The files beside a run's figures: read back as they were written, and damage is told in a sentence."""

import sqlite3
from pathlib import Path

import pytest
from tests.fixtures.reported import write_study

from strop.errors import RunError
from strop.runs import (
    EditedMatrix,
    KeptAnswer,
    capped,
    numbered_groups,
    read_answers,
    read_spectra,
    read_trials,
    thinned,
    write_answers,
    write_spectra,
)

ANSWER = KeptAnswer(
    row=3, score="exact", prompt="a \u2028 <b>", wanted="Łódź", before="x", after="y", right_before=False, right_after=True,
    loss_before=2.5, loss_after=None, category="city", group="g", frequency=1.5,
)  # fmt: skip
MATRIX = EditedMatrix(
    site={"layer": 2, "matrix_type": "query", "head": 1}, method="spectrum", count=3, removed=1, mean_change=0.4,
    energy_kept=0.9, indices=(0, 1, 2), values=(3.0, 2.0, 1.0), scales=(1.0, 1.2, 0.0),
)  # fmt: skip


def test_answers_and_spectra_come_back_as_they_were(tmp_path: Path) -> None:
    plain = KeptAnswer(row=4, score="perplexity", prompt="p", wanted="w", loss_before=1.0, loss_after=0.5)
    write_answers(tmp_path, [ANSWER, plain])
    write_spectra(tmp_path, [MATRIX])
    assert read_answers(tmp_path) == (ANSWER, plain)
    assert read_spectra(tmp_path) == (MATRIX,)
    assert (ANSWER.fixed, ANSWER.broken, plain.fixed, plain.broken) == (True, False, False, False)
    assert MATRIX.name == "layer 2 query head 1"
    assert len((tmp_path / "answers.jsonl").read_bytes().split(b"\n")) == 3


def test_a_folder_without_them_has_none(tmp_path: Path) -> None:
    assert (read_answers(tmp_path), read_spectra(tmp_path), read_trials(tmp_path)) == ((), (), ())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("answers.jsonl", '{"row": 1', "is damaged ("),
        ("answers.jsonl", "[1]", "is damaged ("),
        ("answers.jsonl", '{"score": "exact"}', "is damaged ('row')"),
        (
            "answers.jsonl",
            '{"row": 1, "score": "exact", "prompt": "", "wanted": "", "group": ["a"]}',
            "is damaged (group is ['a'])",
        ),
        (
            "answers.jsonl",
            '{"row": 1, "score": "exact", "prompt": "", "wanted": "", "right_after": "yes"}',
            "is damaged (right_after is 'yes')",
        ),
        ("spectra.json", "{}", "is damaged ('matrices')"),
        ("study.db", "no database at all, and long enough", "cannot be read as a study ("),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    read = {"answers.jsonl": read_answers, "spectra.json": read_spectra, "study.db": read_trials}[name]
    with pytest.raises(RunError) as error:
        read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / name} {said}")


def test_a_study_of_another_kind_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "study.db") as other:
        other.execute("CREATE TABLE trials (trial_id INTEGER)")
    with pytest.raises(RunError, match="cannot be read as a study"):
        read_trials(tmp_path)


def test_a_study_is_read_without_a_change_to_its_folder_and_with_its_journal(tmp_path: Path) -> None:
    write_study(tmp_path / "study.db")
    with sqlite3.connect(tmp_path / "study.db") as study:
        study.execute("PRAGMA journal_mode = WAL")
    study.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(read_trials(tmp_path)) == 21
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with sqlite3.connect(tmp_path / "study.db") as study:  # which someone is still writing to
        study.execute("UPDATE trials SET state = 'RUNNING' WHERE trial_id = 3")
        study.commit()
        assert (tmp_path / "study.db-wal").exists()
        assert len(read_trials(tmp_path)) == 20
    study.close()


def test_what_is_long_is_capped_and_thinned() -> None:
    assert capped("ab" * 400)[-2:] == "a…"
    assert capped("ab" * 400, keep_end=True)[:3] == "…ba"
    places = thinned(1000)
    assert (places[0], places[-1], len(places), len(set(places))) == (0, 999, 256, 256)


def test_groups_are_numbered_and_who_has_none_stands_alone() -> None:
    lone = KeptAnswer(row=1, score="exact", prompt="", wanted="")
    assert numbered_groups([ANSWER, lone, ANSWER, lone]) == [0, 1, 0, 2]
