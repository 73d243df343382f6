"""Files and folders are whole or not there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from strop.errors import UsageError
from strop.files import (
    cache_folder,
    making_folder,
    refuse_occupied,
    remove_leftovers,
    replacing_file,
    replacing_folder,
    write_json,
    write_text,
)


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o022)
    yield 0o022
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("failure", [ValueError("half-way"), KeyboardInterrupt()])
def test_an_exception_leaves_no_file_behind(failure: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(failure)), replacing_file(tmp_path / "new.txt") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise failure
    assert not list(tmp_path.iterdir())


def test_an_exception_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="half-way"), replacing_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ValueError("half-way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new.txt"
    with replacing_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # the same disk, so that the renaming is one step
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError("half-way"), KeyboardInterrupt()])
def test_an_exception_leaves_no_folder_behind(failure: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(failure)), making_folder(tmp_path / "new") as temporary:  # noqa: PT012
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file.txt").write_text("half")
        raise failure
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new"
    with making_folder(path) as temporary:
        (temporary / "file.txt").write_text("whole")
        assert not path.exists()
    assert (path / "file.txt").read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_folder_may_be_filled_and_survives_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.mkdir()
    with pytest.raises(ValueError, match="half-way"), making_folder(path):
        raise ValueError("half-way")
    assert path.is_dir()
    with making_folder(path) as temporary:
        (temporary / "file.txt").write_text("whole")
    assert [file.name for file in path.iterdir()] == ["file.txt"]


def test_a_folder_that_holds_something_is_refused_before_any_work_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "full"
    path.mkdir()
    (path / "precious").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"full is there already and is not empty: choose another folder or remove"),
        making_folder(path),
    ):
        raise AssertionError("the work was started")
    assert (path / "precious").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folders_place_is_refused_with_the_callers_remedy(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"taken is a file, and a folder is to be written there: use --resume\."):
        refuse_occupied(path, remedy="use --resume")
    assert path.read_text() == "mine"


def test_nothing_and_an_empty_folder_are_not_occupied(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        refuse_occupied(path, remedy="-")
        with making_folder(path) as temporary:
            (temporary / "made").touch()
        assert (path / "made").is_file()
        (path / "made").unlink()
        path.rmdir()


def test_files_and_folders_can_be_read_by_others_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "file.txt", "text")
    with making_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
        save_file({"tensor": torch.zeros(1)}, temporary / "inner" / "tensors.safetensors")
        (temporary / "private.txt").touch(mode=0o600)
    assert mode(tmp_path / "file.txt") == 0o644
    assert mode(tmp_path / "folder") == 0o755
    assert mode(tmp_path / "folder" / "inner") == 0o755
    assert mode(tmp_path / "folder" / "inner" / "tensors.safetensors") == 0o644
    assert mode(tmp_path / "folder" / "private.txt") == 0o644


def test_a_stricter_umask_is_respected(tmp_path: Path, umask: int) -> None:
    os.umask(0o077)
    write_text(tmp_path / "file.txt", "text")
    with making_folder(tmp_path / "folder"):
        pass
    assert mode(tmp_path / "file.txt") == 0o600
    assert mode(tmp_path / "folder") == 0o700
    assert os.umask(0o077) == 0o077  # asking for it has not changed it


def test_json_is_written_as_people_read_it(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"city": "Curitiba", "in": "São Paulo?"})
    assert (tmp_path / "value.json").read_text(
        encoding="utf-8"
    ) == '{\n  "city": "Curitiba",\n  "in": "São Paulo?"\n}\n'


def test_a_value_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_text() == "1\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STROP_CACHE": "/named"}, "/named"),
        ({"STROP_CACHE": "~/named"}, "/home/someone/named"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/strop"),
        ({}, "/home/someone/.cache/strop"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STROP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **environment}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_folder_gives_way_only_to_a_whole_one(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "kept"
    for content in ("old", "new"):
        with replacing_folder(path) as temporary:
            (temporary / content).write_text(content)
    with pytest.raises(ValueError, match="half-way"), replacing_folder(path) as temporary:  # noqa: PT012
        (temporary / "half").write_text("half")
        raise ValueError("half-way")
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]
    assert mode(path) == 0o755


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    for name in (".kept.abcd1234.partial", "kept", ".hidden", ".somebodys.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    for name in (".file.abcd1234.partial", "kept/.file.txt.abcd_234.partial"):
        (tmp_path / name).write_text("half")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "not there")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".somebodys.partial", "kept"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["file"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_is_never_lost_while_another_takes_its_place(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the two moves, and, by a process that is killed, without a chance to put it back."""
    path = tmp_path / "best"
    path.mkdir()
    (path / "old").write_text("old")
    moves, move = [], Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        moves.append(target)
        if 2 <= len(moves) <= 1 + number:  # the second of them hits while the first is handled
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert path.exists() == (number == 1)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "old").read_text() == "old"


def test_a_cache_in_a_home_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_CACHE", "~nobody_of_that_name/strop")
    with pytest.raises(
        UsageError, match="no home folder for ~nobody_of_that_name/strop, .*: let \\$STROP_CACHE name a folder"
    ):
        cache_folder()
    monkeypatch.delenv("STROP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    assert cache_folder().is_absolute()  # from the password file
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UsageError, match="There is no home folder for ~/.cache/strop"):
        cache_folder()
