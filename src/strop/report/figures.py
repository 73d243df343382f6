"""How figures are spelt for people: fractions become percent here and nowhere else."""


def percent(fraction: float | None) -> str:
    """Spell a fraction as percent.

    >>> percent(0.0712)
    '7.1 %'
    """
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def signed_points(fraction: float) -> str:
    """Spell a difference of two fractions in percentage points.

    >>> signed_points(0.095)
    '+9.5'
    """
    return f"{100 * fraction:+.1f}"
