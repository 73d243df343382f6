"""No data file, however broken, ends in a traceback, a long wait or a page of text."""

import json
from pathlib import Path

from tests.fixtures.hostile_data import hostile_files, refusal_of

from strop.tasks import load_task


def test_a_hundred_hostile_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    settings = {"splits": {"select": 0.5, "test": 0.5}, "group": "n"}
    outcomes = {}
    for name, content in hostile_files(seed=13, count=108):
        path = tmp_path / name
        path.write_bytes(content)
        for kind in ({}, {"group": None}):
            task = {"name": "t", "data": str(path), **settings, **kind}
            outcomes[name, bool(kind)] = refusal_of(lambda: load_task(task), beside=str(path))  # noqa: B023
    refused = [name for name, message in outcomes.items() if message]
    assert 108 < len(refused) < 216  # most are broken, and what is merely odd is read
    assert all(str(tmp_path) in str(outcomes[name]) or "split" in str(outcomes[name]) for name in refused)


def test_a_folder_of_hostile_files_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    outcomes = {}
    for name, content in hostile_files(seed=14, count=18):
        folder = tmp_path / Path(name).stem
        folder.mkdir()
        (folder / f"train{Path(name).suffix}").write_bytes(content)
        task = {"name": "t", "data": f"hf://{folder}"}
        outcomes[name] = refusal_of(lambda: load_task(task), beside=str(folder))  # noqa: B023
    refused = {name: message for name, message in outcomes.items() if message is not None}
    assert 9 <= len(refused) < 18  # most are broken, and what is merely odd is read
    assert all(str(tmp_path) in message or "split" in message for message in refused.values())


def test_the_same_seed_makes_the_same_files() -> None:
    assert list(hostile_files(seed=3, count=20)) == list(hostile_files(seed=3, count=20))


def test_a_message_of_three_lines_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt\n\n\n": "a"}))
    message = refusal_of(lambda: load_task({"name": "t", "data": str(path)}))
    assert message is not None
    assert r"the row has prompt\n\n\n." in message
