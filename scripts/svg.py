"""The lines and words that figures are drawn of."""

from xml.sax.saxutils import escape


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    """Return a line from one point to another."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="{colour}"{dashes}/>'


def text(x: float, y: float, words: str, anchor: str, colour: str = "#4a5a6e") -> str:
    """Return words that start, end or have their middle at a point."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def sheet(width: int, height: int, title: str) -> list[str]:
    """Return what a drawing on white begins with."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
