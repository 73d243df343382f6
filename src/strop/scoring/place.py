"""What an example is called in an error or a note."""

from strop.errors import quoted
from strop.tasks.examples import Example


def place_of(example: Example) -> str:
    """Return what an example is called: its row, and how its prompt begins or what its image is called."""
    if example.image is not None:
        return f"row {example.row} (image {quoted(example.image.name, most=60)})"
    return f"row {example.row} (prompt {quoted(example.prompt, most=40)})"
