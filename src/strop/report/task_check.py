"""What a task's check found, for a person: a table of its splits, an example, and what to mend."""

import re
from collections.abc import Sequence

from strop.errors import quoted, shortened
from strop.report.figures import percent
from strop.tables import Table
from strop.tasks.check import Lengths, TaskCheck
from strop.tasks.rendering import BadRow

MOST_ROWS = 20
"""Bad rows that are shown in full."""
MOST_NUMBERS = 12
_PARTICULAR = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+")


def task_table(found: TaskCheck) -> Table:
    """Return the table of a task's splits.

    Args:
        found: by `check_task`.
    """
    total = sum(split.examples for split in found.splits)
    rows = tuple(
        (
            split.name,
            f"{split.examples:,}",
            percent(split.examples / total),
            "" if split.groups is None else f"{split.groups:,}",
            "" if split.categories is None else str(split.categories),
        )
        for split in found.splits
    )
    title = f"{found.name}: score {found.score}, {total:,} examples"
    return Table(title, ("split", "rows", "share", "groups", "categories"), rows)


def bad_row_lines(bad: Sequence[BadRow]) -> list[str]:
    """Return what is wrong with rows, in lines: each of them, or each kind of problem once where they are many.

    Args:
        bad: in the order of their sources.
    """
    if not bad:
        return []
    kinds: dict[tuple[str, str], list[BadRow]] = {}
    for row in bad:
        kinds.setdefault((row.source, _PARTICULAR.sub("…", row.problem)), []).append(row)
    shown = [line for rows in kinds.values() for line in _lines_of(rows)]
    more = [f"  … and {len(shown) - MOST_ROWS} more kinds of problem"] if len(shown) > MOST_ROWS else []
    return [_counted(len(bad)), *shown[:MOST_ROWS], *more]


def rows_in_lines(sentences: Sequence[str]) -> list[str]:
    """Return rows that a model cannot be asked, each in a line, the first of them where they are many.

    Args:
        sentences: that name the rows and what is wrong with them.
    """
    if not sentences:
        return []
    more = [f"  … and {len(sentences) - MOST_ROWS:,} more"] if len(sentences) > MOST_ROWS else []
    return [_counted(len(sentences)), *(f"  {sentence}" for sentence in sentences[:MOST_ROWS]), *more]


def _counted(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'} cannot be used:"


def _lines_of(rows: Sequence[BadRow]) -> list[str]:
    first = rows[0]
    numbers = ", ".join(str(row.row) for row in rows[:MOST_NUMBERS])
    if len(rows) == 1:
        return [f"  {first}"]
    rest = f", … ({len(rows):,} rows)" if len(rows) > MOST_NUMBERS else ""
    return [f"  {first.source}, rows {numbers}{rest}: {first.problem}"]


def task_lines(found: TaskCheck) -> list[str]:
    """Return what else is worth a look: sources, lengths, frequent answers, repeats and contradictions.

    Args:
        found: by `check_task`.
    """
    lines = []
    for source in found.sources:
        parts = [f"{source.examples:,} examples"]
        parts += [f"{count:,} {what}" for count, what in (
            (source.bad, "bad"), (source.skipped, "skipped by skip:"), (source.left_out, "left out by where:"),
        ) if count]  # fmt: skip
        lines.append(f"{source.name}: {', '.join(parts)}")
    unused = found.distinct - sum(split.examples for split in found.splits)
    if found.splits and unused > 0:
        lines.append(
            f"{unused:,} are in no split: a category has more than per_category, or another split has them too"
        )
    for what, lengths in (("prompts", found.prompt_characters), ("answers", found.answer_characters)):
        if lengths is not None:
            lines.append(length_line(what, lengths, "characters"))
    if found.common_answers and found.score != "perplexity":
        frequent = ", ".join(
            f"{quoted(answer, most=30)} {percent(count / found.distinct)}" for answer, count in found.common_answers
        )
        lines.append(f"most frequent answers: {frequent}")
    if found.repeated:
        repeats = "row repeats" if found.repeated == 1 else "rows repeat"
        lines.append(f"{found.repeated:,} {repeats} an earlier prompt and answer; each is kept once")
    if found.contradictions:
        first = found.contradictions[0]
        answers = ", ".join(quoted(answer, most=30) for answer in first.answers[:3])
        numbers = ", ".join(map(str, first.rows[:3]))
        prompts = "prompt has" if len(found.contradictions) == 1 else "prompts have"
        lines.append(
            f"{len(found.contradictions):,} {prompts} several answers, such as {quoted(first.prompt, most=40)}: {answers} "
            f"(rows {numbers})"
        )
    return [*lines, *_border_lines(found)]


def _border_lines(found: TaskCheck) -> list[str]:
    """Return what an answer's first and last characters are likely to spoil."""
    lines = []
    for rows, one, several, remedy in (
        (
            found.blanks,
            "answer has",
            "answers have",
            "blanks to spare, such as {}; trim the column, {{{{ COLUMN|trim }}}}",
        ),
        (
            found.glued,
            "answer follows",
            "answers follow",
            "the prompt without a space, such as {}; begin answers with one",
        ),
    ):
        if rows:
            row, text = rows[0]
            shown = remedy.format(f"{quoted(text, most=50)} (row {row})")
            lines.append(f"{len(rows):,} {one if len(rows) == 1 else several} {shown}")
    return lines


def length_line(what: str, lengths: Lengths, unit: str) -> str:
    """Return how long texts are, in a line.

    Args:
        what: is measured.
        lengths: of them.
        unit: they are counted in.

    >>> length_line("answers", Lengths(1, 2.0, 9), "tokens")
    'answers: 1 to 9 tokens, half of them 2 or fewer'
    """
    return f"{what}: {lengths.fewest:,} to {lengths.most:,} {unit}, half of them {lengths.median:g} or fewer"


def example_lines(found: TaskCheck) -> list[str]:
    """Return an example, its prompt and answer as text with the border between them.

    Args:
        found: by `check_task`.
    """
    example = found.example
    if example is None:
        return []
    chat = ["  (in the chat template)"] if example.chat is not None else []
    shots = [f"  ({len(example.shots)} solved rows stand before it)"] if example.shots else []
    choices = [f"  choices {', '.join(map(quoted, example.choices))}"] if example.choices else []
    prompt, answer = (shortened(text, most=400) for text in (example.prompt, example.answer))
    if example.image is not None:
        return [f"row {example.row}, image and answer: {prompt} | {answer}"]
    return [f"row {example.row}, prompt and answer, parted by |:", f"  {prompt}|{answer}", *choices, *shots, *chat]
