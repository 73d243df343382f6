"""Which answers an edit changed, for people."""

from strop.statistics import ChangedAnswers

LONGEST = 96
"""Characters of a prompt or an answer that are shown."""


def changed_lines(changed: ChangedAnswers | None, *, names: tuple[str, str] = ("before", "after")) -> list[str]:
    """Return the examples that were fixed and those that were broken, each with both answers.

    Args:
        changed: of two models; None where nobody asked.
        names: of the two.
    """
    if changed is None:
        return []
    lines = []
    wide = max(map(len, (*names, "wanted"))) + 1
    for kind, shown, count in (
        ("Fixed", changed.fixed, changed.fixed_count),
        ("Broken", changed.broken, changed.broken_count),
    ):
        lines.append(
            f"{kind}: {count}{f', of which {len(shown)}' if len(shown) < count else ''}{':' if shown else '.'}"
        )
        for each in shown:
            said = {"wanted": each.wanted, names[0]: each.before, names[1]: each.after}
            lines.append(f"  row {each.row}: {_short(each.prompt, keep_end=True)}")
            lines += [f"    {f'{name}:':{wide}} {_short(text)}" for name, text in said.items()]
    return lines


def _short(text: str, *, keep_end: bool = False) -> str:
    """Return a text on one line; of a long prompt the end is kept, which asks."""
    line = " ".join(text.split())
    if len(line) <= LONGEST:
        return line
    return f"…{line[1 - LONGEST :]}" if keep_end else f"{line[: LONGEST - 1]}…"
