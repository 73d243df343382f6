"""Where the repository lies, and a Python of its own to ask."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run code in a new interpreter."""

    def run(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=60,
        )

    return run
