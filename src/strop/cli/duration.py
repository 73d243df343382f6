"""Durations as people write them, 90, 90s, 30m, 1h30m, and as they read them, 3 min 20 s."""

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


def spell_seconds(seconds: float) -> str:
    """Spell a duration for people.

    >>> spell_seconds(12.4), spell_seconds(200), spell_seconds(7260)
    ('12 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
