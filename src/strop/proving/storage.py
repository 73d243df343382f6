"""Opening a study's storage so that several processes may share it, and saying in one sentence what is wrong with it."""

import contextlib
import hashlib
import os
import random
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from sqlalchemy.exc import SQLAlchemyError

from strop.errors import RunError, reason_in
from strop.files import PARTIAL, to_disk
from strop.proving.rows import READS
from strop.runs.environment import without_password

ATTEMPTS = 5
"""How often opening is tried where another process is making the tables at the same moment."""

BUSY_SECONDS = 60
"""How long a process waits for another that is writing to the same SQLite file."""

LONGEST_NAME = 512
"""Characters of the name of what is kept beside the trials that Optuna's tables have room for."""

_EMPTY_FILE: list[bytes] = []
"""What the first SQLite file that this process made held before its first trial, once there was one."""


def fitting_name(name: str) -> str:
    """Return a name, the end of one that is too long given by a digest of all of it.

    Args:
        name: of what is kept beside the trials.
    """
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: LONGEST_NAME - len(digest) - 1]} {digest}"


def open_database(address: str, heartbeat_seconds: int, grace_seconds: int) -> optuna.storages.RDBStorage:
    """Return a database with Optuna's tables in it.

    Args:
        address: as SQLAlchemy understands it.
        heartbeat_seconds: how often whoever holds a trial says so.
        grace_seconds: after how long a silence a trial counts as abandoned.
    """
    on_sqlite = address.startswith("sqlite")
    _make_tables(address)
    options = (
        {"connect_args": {"timeout": BUSY_SECONDS, "isolation_level": None}} if on_sqlite else {"pool_pre_ping": True}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        database = optuna.storages.RDBStorage(
            address,
            engine_kwargs=options,
            heartbeat_interval=heartbeat_seconds,
            grace_period=grace_seconds,
            skip_table_creation=True,
            skip_compatibility_check=True,  # they were just made, or looked at
        )
    if on_sqlite:
        database.engine.dispose()  # its connections were made before the next line
        sqlalchemy.event.listen(database.engine, "connect", _write_ahead)
        sqlalchemy.event.listen(database.engine, "begin", _begin_immediate)
    return database


def _make_tables(address: str) -> None:
    """Make Optuna's tables where there are none, by connections that are closed at once, also where it fails.

    SQLite commits each table and each index by itself, so a process that is killed in between would leave a file that no
    later one can mend. There a new file is made whole beside its place and then takes its name in one step.
    """
    path = _sqlite_file(address)
    if path is not None and not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL) as scratch:
            made = Path(scratch) / path.name
            _lay_out(made)
            with contextlib.suppress(OSError):  # another process was first, or the file system has no links
                os.link(made, path)
                return
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _create(address)
            return
        except SQLAlchemyError as error:
            if attempt == ATTEMPTS or not any(word in str(error).lower() for word in ("already exists", "unique")):
                raise
            time.sleep(random.random() / 5)


def _lay_out(made: Path) -> None:
    """Make an SQLite file with Optuna's tables: a process's first by Optuna, which takes a while, the others as copies of it."""
    if not _EMPTY_FILE:
        _create(f"sqlite:///{made}")
        _EMPTY_FILE.append(made.read_bytes())
        return
    made.write_bytes(_EMPTY_FILE[0])
    to_disk(made)


def _create(address: str) -> None:
    hang_up(optuna.storages.RDBStorage(address, engine_kwargs={"poolclass": sqlalchemy.pool.NullPool}))


def _sqlite_file(address: str) -> Path | None:
    """Return the file of an SQLite address whose folder is there; None for any other storage."""
    url = sqlalchemy.make_url(address)
    if not url.drivername.startswith("sqlite") or not url.database or url.database == ":memory:" or url.query:
        return None
    path = Path(url.database)
    return path if path.parent.is_dir() else None


def hang_up(database: optuna.storages.RDBStorage) -> None:
    """Close a database's connections.

    Args:
        database: no longer used.
    """
    database.remove_session()
    database.engine.dispose()


@contextlib.contextmanager
def in_one_sentence(address: str | None, done: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say what is wrong with a storage, without its password.

    Args:
        address: of the storage; None where it is in memory.
        done: what cannot be done with it, as a participle.
        kinds: of what is raised where something is wrong with it.

    Raises:
        RunError: something is.
    """
    try:
        yield
    except kinds as error:
        cause = error.__cause__ or error  # Optuna wraps what SQLAlchemy says in a guess of its own
        reason = reason_in(cause)
        raise RunError(
            f"The study storage {without_password(str(address))} cannot be {done}: {without_password(reason)}; see to its "
            "address, its server or its disk, then repeat the command with --resume."
        ) from error


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let Optuna say nothing but warnings."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    """Lock the file before a state is read that is to be changed: SQLite has no SELECT … FOR UPDATE.

    Left alone, two processes may both read that a trial waits, and both let it run. Who only reads locks nobody out.
    """
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READS) else "BEGIN IMMEDIATE")


def _write_ahead(connection: sqlite3.Connection, record: object) -> None:
    """Let SQLite append what is written to a log: a commit costs 0.2 ms rather than 12 ms, and a killed process harms nothing.

    A power failure may undo the last trials, which are then done again.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode == "wal":  # not every file system can
        connection.execute("PRAGMA synchronous = NORMAL")
