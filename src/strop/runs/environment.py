"""Where and with what a run was executed."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("strop", "torch", "transformers", "safetensors", "tokenizers", "datasets", "optuna", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_environment(compute: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader needs to judge a run's speed and repeat its figures.

    Args:
        compute: what the library that computes says of its threads and devices.
    """
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        **compute,
        "command": [Path(sys.argv[0]).name, *map(without_password, sys.argv[1:])],
    }


def without_password(address: str) -> str:
    """Return a storage's address as it may be shown.

    >>> without_password("postgresql://me:secret@host/studies")
    'postgresql://me:***@host/studies'
    >>> without_password("postgresql:///studies?host=/run/pg&password=secret")
    'postgresql:///studies?host=/run/pg&password=***'
    """
    hidden = re.sub(r"(://[^/@\s:]*:)\S*@", r"\1***@", address)
    return re.sub(r"([?&]\w*pass\w*=)[^&#\s]*", r"\1***", hidden, flags=re.IGNORECASE)


def peak_rss_bytes() -> int:
    """Return the most memory this process has held at once; 0 where the system does not say."""
    if importlib.util.find_spec("resource") is None:  # Windows
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Stopwatch:
    """Seconds since it was made, added to those of earlier sittings."""

    def __init__(self, earlier_seconds: float = 0.0) -> None:
        self._started = time.monotonic()
        self._earlier_seconds = earlier_seconds

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._earlier_seconds + time.monotonic() - self._started
