"""Rows of a data set of the hub, or of a local folder that is laid out as one."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.errors import TaskError, reason_in
from strop.tasks.tables import rows_of_dataset
from strop.tasks.text_files import decoded, rows_of_csv, rows_of_json, rows_of_json_lines

HUB = "hf://"
CSV_OPTIONS = {
    "sep", "delimiter", "names", "column_names", "name", "version", "data_dir", "data_files", "description", "features",
    "keep_default_na", "na_filter", "na_values", "true_values", "false_values", "converters", "engine", "chunksize", "verbose",
    "memory_map", "float_precision", "date_format", "mangle_dupe_cols", "error_bad_lines", "warn_bad_lines", "on_bad_lines",
    "prefix",
}  # fmt: skip
"""What a data set's README.md may say of its CSV files: how they are laid out, or how `pandas` would go about them and what it
would turn their text into. Its other options are refused, not left aside."""


def rows_of_hub(source: str, relative_to: Path) -> list[Mapping[str, Any]]:
    """Return the rows of `hf://owner/name[/folder][:config][#split]`.

    Text files are read as they are written, by the same readers as files that a task names itself; `datasets` finds them,
    and reads the others.

    Args:
        source: the address.
        relative_to: the folder a local one is looked for in first.

    Raises:
        TaskError: there is no such data set, config or split, or a row in it cannot be read.
    """
    address, _, split = source.removeprefix(HUB).partition("#")
    name, _, config = address.partition(":")
    repository = "/".join(name.split("/")[:2])
    folder = _local_copy(name, relative_to)
    try:
        with _quiet_datasets():
            if folder is not None:
                place, config = _within(folder, config)
                return _load(place, config, split, data_files=_files_of(Path(place), split))
            inside = name.removeprefix(f"{repository}/") if name != repository else None
            return _load(repository, config, split, data_dir=inside)
    except TaskError:
        raise
    except Exception as error:  # datasets wraps whatever its readers raise in classes of its own
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


def _load(place: str, config: str, split: str, **where: Any) -> list[Mapping[str, Any]]:
    import datasets

    builder = datasets.load_dataset_builder(place, config or None, **where)
    if builder.name in ("csv", "json"):
        return _rows_of_text(builder, split)
    if (builder.name, builder.info.builder_name) == ("cache", "csv"):
        raise TaskError(
            f"The hub cannot be reached, and what datasets keeps of the CSV files of {place} has lost texts such as NA and 02108; "
            f"fetch it where there is a network, by hf download {place} --repo-type dataset --local-dir FOLDER/{place}, and set "
            "STROP_DATA to FOLDER."
        )
    loaded = datasets.load_dataset(place, config or None, split=split or None, **where)
    parts = loaded.values() if isinstance(loaded, dict) else [loaded]
    return [row for part in parts for row in rows_of_dataset(part)]


def _rows_of_text(builder: Any, split: str) -> list[Mapping[str, Any]]:
    """Return the rows of a builder's text files, of all splits or of what an instruction such as `train[:70%]` names."""
    import datasets

    files: Mapping[str, Sequence[str]] = {str(name): files for name, files in builder.config.data_files.items()}
    manager = datasets.DownloadManager(
        dataset_name=builder.dataset_name,
        download_config=datasets.DownloadConfig(token=builder.token, storage_options=builder.storage_options),
        base_path=builder.base_path,
    )

    @functools.cache
    def rows_of(name: str) -> list[Mapping[str, Any]]:
        fetched = manager.download_and_extract(list(files[name]))
        return [
            row
            for source, local in zip(files[name], fetched, strict=True)
            for path in manager.iter_files(local)
            for row in _rows_of_file(Path(path), str(source), builder)
        ]

    if not split:
        return [row for name in files for row in rows_of(name)]
    spec = "+".join(files) if split == "all" else split
    asked = {part.partition("[")[0].strip() for part in spec.split("+")}
    lengths = {name: len(rows_of(name)) if name in asked else 0 for name in files}
    parts = datasets.ReadInstruction.from_spec(spec).to_absolute(lengths)
    return [row for part in parts for row in rows_of(part.splitname)[slice(part.from_, part.to)]]


def _rows_of_file(path: Path, source: str, builder: Any) -> list[Mapping[str, Any]]:
    text = decoded(path)
    if builder.name == "json":
        if builder.config.field is None and ".jsonl" in Path(source).suffixes:
            return rows_of_json_lines(text)
        return rows_of_json(text, source, field=builder.config.field)
    _refuse_other_options(builder.config, source)
    return rows_of_csv(text, source, separator=builder.config.sep, names=builder.config.names)


def _refuse_other_options(config: Any, source: str) -> None:
    """Refuse what a data set's README.md says of its CSV files, and is not read by."""
    headers = ("infer", 0) if config.names is None else ("infer", None)
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if option.name in CSV_OPTIONS or value == option.default or (option.name, value) == ("encoding", "utf-8"):
            continue
        if option.name != "header" or value not in headers:
            raise TaskError(
                f"The data set's README.md says {option.name}: {value!r} of {source}, which Strop does not read by; convert the "
                "file to Parquet or JSON Lines."
            )


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
    endings = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
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
