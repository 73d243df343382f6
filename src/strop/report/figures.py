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


def p_value(value: float) -> str:
    """Spell a p-value.

    >>> p_value(0.04), p_value(7.6e-41)
    ('0.040', '7.6e-41')
    """
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
