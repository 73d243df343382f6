"""Rows of a data source: JSON Lines, JSON, CSV, Parquet, or a data set of the hub."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.errors import TaskError, reason_in

Row = Mapping[str, Any]
HUB = "hf://"


def read_rows(source: str, *, relative_to: Path) -> list[Row]:
    """Read all rows of a source.

    Args:
        source: a path ending in .jsonl, .json, .csv or .parquet, or `hf://owner/name[/folder][:config][#split]`, where
            the name may also be a local folder, or one in `$STROP_DATA`, and the split a slice such as `train[:70%]`, or
            the name of a file in a local folder without its ending; without a split, all splits are read one after the
            other.
        relative_to: the folder a relative path starts from.

    Raises:
        TaskError: the source is not there, is empty, or a row in it cannot be read.
    """
    if source.startswith(HUB):
        rows = _read_hub(source, relative_to)
    else:
        path = relative_to / Path(source).expanduser()
        readers = {".jsonl": _read_json_lines, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
        if path.suffix not in readers:
            raise TaskError(
                f"The data file {path} is none of {', '.join(sorted(readers))}; convert it to one of these."
            )
        if not path.is_file():
            raise TaskError(f"There is no data file {path}; data: is relative to the task file.")
        try:
            rows = list(readers[path.suffix](path))
        except UnicodeDecodeError as error:
            raise TaskError(f"The data file {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    if not rows:
        shown = source if source.startswith(HUB) else relative_to / source
        raise TaskError(f"The data source {shown} holds no rows; put at least one example for each split in it.")
    return rows


def _read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TaskError(f"{path}, line {number} is not JSON: {error}.") from None
            if not isinstance(row, dict):
                raise TaskError(f"{path}, line {number} is not a JSON object with named columns.")
            yield row


def _read_json(path: Path) -> Iterator[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise TaskError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise TaskError(f"{path} is not a JSON list of objects; for one object a line, name it .jsonl.")
    yield from content


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise TaskError(
                        f"{path}, line {reader.line_num} does not have the header's {len(reader.fieldnames or [])} columns."
                    )
                yield row
        except csv.Error as error:
            raise TaskError(f"{path}, line {reader.line_num} is not CSV: {error}.") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    import datasets

    try:
        with _quiet_datasets():
            loaded = datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
        yield from loaded
    except Exception as error:  # datasets wraps whatever its readers raise in classes of its own
        raise TaskError(f"{path} cannot be read as Parquet: {reason_in(error)}.") from None


def _read_hub(source: str, relative_to: Path) -> list[Row]:
    import datasets

    address, _, split = source.removeprefix(HUB).partition("#")
    name, _, config = address.partition(":")
    repository = "/".join(name.split("/")[:2])
    folder = _local_copy(name, relative_to)
    try:
        with _quiet_datasets():
            if folder is not None:
                place, config = _within(folder, config)
                files = _files_of(Path(place), split)
                loaded = datasets.load_dataset(place, config or None, split=split or None, data_files=files)
            elif name != repository:
                inside = name.removeprefix(f"{repository}/")
                loaded = datasets.load_dataset(repository, config or None, split=split or None, data_dir=inside)
            else:
                loaded = datasets.load_dataset(name, config or None, split=split or None)
    except Exception as error:  # as above
        if folder is None:
            raise TaskError(
                f"The data set {source} is not under STROP_DATA ({os.environ.get('STROP_DATA') or 'not set'}) and cannot "
                f"be had from the hub: {reason_in(error)}; give owner/name as on the hub, or set STROP_DATA to a FOLDER "
                f"that holds it, put there by hf download {repository} --repo-type dataset --local-dir "
                f"FOLDER/{repository}."
            ) from None
        raise TaskError(
            f"The data set {source} cannot be loaded from {folder}: {reason_in(error)}. "
            "Give a config and a split that it has, or fetch it anew."
        ) from None
    parts = loaded.values() if isinstance(loaded, dict) else [loaded]
    return [row for part in parts for row in part]


def _local_copy(name: str, relative_to: Path) -> Path | None:
    """Return the folder a data set lies in, `$STROP_DATA/owner/name` or `$STROP_DATA/name` if not beside the task.

    Under the latter, capitals and lower case are one, and so are hyphen and underscore.
    """
    folders = [relative_to / name]
    if named := os.environ.get("STROP_DATA"):
        shelf = Path(named).expanduser()
        folders += [shelf / name, shelf / Path(name).name]
        if shelf.is_dir():
            folders += [entry for entry in sorted(shelf.iterdir()) if _plain(entry.name) == _plain(Path(name).name)]
    return next((folder for folder in folders if folder.is_dir()), None)


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def _files_of(folder: Path, split: str) -> dict[str, str] | None:
    """Return the files that a split names, such as `test_svamp.jsonl`, or None: `datasets` finds a split's files.

    It finds those of `train` or `validation` by itself, but not what the hub's `README.md` would declare beside these, such
    as the shards of `validation_matched`.
    """
    name = split.partition("[")[0]
    shards = f"{name}-[0-9]*-of-[0-9]*.parquet"
    if name and any(folder.glob(shards)):
        return {name: shards}
    endings = (".jsonl", ".json", ".csv", ".parquet")
    found = next((ending for ending in endings if name and (folder / f"{name}{ending}").is_file()), None)
    return None if found is None else {name: f"{name}{found}"}


def _within(folder: Path, config: str) -> tuple[str, str]:
    """Return what to load, and its config: a subfolder is one where no README.md in the folder declares it."""
    import datasets

    if config and (folder / config).is_dir() and config not in datasets.get_dataset_config_names(str(folder)):
        return str(folder / config), ""
    return str(folder), config


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Silence the bars and advice of datasets for the length of a block."""
    import datasets

    verbosity, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()
