"""One run with everything in it, and its page, for all tests of the page."""

from pathlib import Path

import pytest
from tests.fixtures.reported import write_full_run

from strop.report import write_report


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_full_run(tmp_path_factory.mktemp("runs") / "facts")


@pytest.fixture(scope="session")
def page_file(full_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = write_report(full_run, out=tmp_path_factory.mktemp("page") / "report.html")
    assert written.verdicts == ("Better, beyond chance",)
    assert written.missing == ()
    return written.path
