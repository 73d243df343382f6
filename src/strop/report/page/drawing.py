"""Matplotlib's figures as SVG that stands inside a page: in the page's own colours and letters, the same bytes each time."""

import dataclasses
import hashlib
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

WIDTH = 5.2
"""Inches: narrow, so that letters are still read where a telephone shrinks the figure."""

COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "accent": "#040404",
    "before": "#050505",
    "worse": "#060606",
    "soft": "#070707",
    "paper": "#080808",
    "one": "#110101",
    "two": "#110202",
    "three": "#110303",
    "four": "#110404",
    "five": "#110505",
    "six": "#110606",
}
"""The page's colours by name, and what stands for each until the figure is drawn: nothing else has these."""

SERIES = ("one", "two", "three", "four", "five", "six")
"""Colours of lines that belong together, from light to dark."""

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "strop",
    "text.parse_math": False,  # a model may say $x$
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.color": COLOURS["line"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing with its title, and what it shows in words."""

    title: str
    description: str
    """For whoever cannot see it."""
    svg: str


def drawn(
    draw: Callable[[Any], None], *, title: str, description: str, height: float, rows: int = 1, columns: int = 1
) -> Figure:
    """Return a figure.

    Args:
        draw: draws on the axes it is given: one, or a list of them.
        title: above it.
        description: what it shows, in words.
        height: in inches.
        rows: of axes.
        columns: of axes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # letters that matplotlib has no measure of are drawn by the browser
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.subplots(rows, columns, squeeze=False)
        draw(axes[0, 0] if rows * columns == 1 else list(axes.flat))
        written = io.StringIO()
        canvas.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Figure(title, description, _inlined(written.getvalue()))


def _inlined(svg: str) -> str:
    """Return an SVG file as an element of a page: no prologue, no style of the whole page, no names, the page's colours."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg
    )
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r" transform=\"rotate\(-0 [^)]*\)\"", "", svg)
    svg = _with_own_names(svg)
    svg = re.sub(r"font(?:-family)?: [^;\"]*(?:sans-serif|DejaVu)[^;\"]*", _font, svg)
    svg = re.sub(r"(\d+\.\d{2})\d+", r"\1", svg)  # hundredths of a point are finer than any screen
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _with_own_names(svg: str) -> str:
    """Return a drawing whose parts have a name only where they are referred to, and none that another drawing has."""
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    own = hashlib.sha256(svg.encode()).hexdigest()[:6]
    svg = re.sub(r" id=\"([^\"]*)\"", lambda found: f' id="{own}{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r"(url\(#|href=\"#)", rf"\g<1>{own}", svg)


def _font(found: re.Match[str]) -> str:
    """Keep size and weight of a font, and leave the letters to the page."""
    size = re.search(r"[\d.]+px", found[0])
    weight = re.search(r"\b(bold|[5-9]00)\b", found[0])
    kept = [f"font-size: {size[0]}"] if size else []
    return "; ".join([*kept, *(["font-weight: 650"] if weight else [])]) or "font-style: normal"
