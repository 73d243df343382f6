"""Durations as people write them: 90, 90s, 30m, 1h30m."""

import re

from strop.errors import UsageError

_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?|{_NUMBER}", re.ASCII)


def parse_seconds(text: str, option: str) -> float:
    """Return the seconds a text names.

    Args:
        text: such as `90`, `90s`, `30m` or `1h30m`.
        option: what to call it in an error.

    Raises:
        UsageError: the text is not of that form.

    >>> parse_seconds("1h30m", "--time-limit")
    5400.0
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise UsageError(f"{option} is a duration such as 90s, 30m or 1h30m, not '{text}'.")
    hours, minutes, seconds, bare_seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds + bare_seconds
