"""How figures are spelt for people: fractions become percent here and nowhere else."""


def percent(fraction: float | None) -> str:
    """Spell a fraction as percent.

    >>> percent(0.0712)
    '7.1 %'
    """
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def shots_phrase(count: int) -> str:
    """Say that a task was asked with examples in the prompt; nothing where it was not.

    >>> shots_phrase(1), shots_phrase(0)
    (', 1 example in each prompt', '')
    """
    return f", {count} example{'' if count == 1 else 's'} in each prompt" if count else ""


def signed_points(fraction: float) -> str:
    """Spell a difference of two fractions in percentage points, with more digits where fewer would make it 0.

    >>> signed_points(0.095), signed_points(-0.0003)
    ('+9.5', '-0.03')
    """
    points = 100 * fraction
    digits = next((digits for digits in (1, 2, 3) if round(points, digits)), 1)
    return f"{round(points, digits) + 0.0:+.{digits}f}"
