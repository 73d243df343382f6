"""Finding a run that asks for help: in a database, by its address, or by a run's folder or study.db."""

import json
from pathlib import Path

import sqlalchemy
from optuna.storages._rdb import models
from sqlalchemy.exc import SQLAlchemyError

from strop.errors import RunError, reason_in
from strop.proving.board import BATCH
from strop.runs import STUDY_FILE, without_password

REMEDY = "give the address of a search's database, its run folder or its study.db"


def find_study(text: str | Path) -> tuple[str, str]:
    """Return the address of a database and the name of the newest run in it that asks for help.

    Args:
        text: an address SQLAlchemy understands, a run's folder or its study.db; behind a # the name of one run.

    Raises:
        RunError: there is no such database, it cannot be reached, or nobody asks for help there.
    """
    address, name = _address_of(str(text))
    shown = without_password(address)
    going_on = _going_on(address, shown)
    if name is not None and name not in going_on:
        raise RunError(f"No search in {shown} is called {name} and asks for help: leave the # and the name out.")
    if not going_on:
        raise RunError(
            f"No search in {shown} asks for help: begin one with strop search and this --storage or --out, then its workers."
        )
    return address, name or going_on[0]


def _address_of(text: str) -> tuple[str, str | None]:
    place, _, name = text.rpartition("#") if "#" in text and not Path(text).exists() else (text, "", "")
    if "://" not in place:
        path = Path(place).expanduser()
        path = path / STUDY_FILE if path.is_dir() else path
        if not path.is_file():
            raise RunError(f"There is no study at {path}: {REMEDY}.")
        return f"sqlite:///{path.absolute()}", name or None
    try:
        url = sqlalchemy.make_url(place)
    except SQLAlchemyError:
        raise RunError(f"{without_password(place)} is no address of a database: {REMEDY}.") from None
    if url.drivername.startswith("sqlite") and not (url.database and Path(url.database).is_file()):
        raise RunError(f"There is no study at {url.database or place}: {REMEDY}.")
    return place, name or None


def _going_on(address: str, shown: str) -> list[str]:
    """Return the names of runs that ask for help, the newest first."""
    studies, kept = models.StudyModel.__table__, models.StudySystemAttributeModel.__table__
    query = (
        sqlalchemy.select(studies.c.study_name, kept.c.value_json)
        .join(kept, kept.c.study_id == studies.c.study_id)
        .where(kept.c.key == BATCH)
        .order_by(studies.c.study_id.desc())
    )
    try:
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.pool.NullPool)
        if not sqlalchemy.inspect(engine).has_table(kept.name):
            return []
        with engine.connect() as connection:
            found = connection.execute(query).all()
    except (SQLAlchemyError, ImportError) as error:
        reason = without_password(reason_in(error.__cause__ or error))
        raise RunError(
            f"The study {shown} cannot be reached: {reason}; see to its address and its server, then repeat the command."
        ) from error
    return [str(name) for name, batch in found if not json.loads(batch)["over"]]
