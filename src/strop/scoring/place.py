"""What an example is called in an error or a note."""

from strop.tasks.examples import Example


def place_of(example: Example) -> str:
    """Return what an example is called: its row and how its prompt begins."""
    return f"row {example.row} (prompt {short(example.prompt)})"


def short(text: str) -> str:
    """Return a text in quotes, cut where it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
