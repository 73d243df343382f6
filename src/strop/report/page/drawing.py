"""Matplotlib's figures as SVG that stands inside a page: in the page's own colours and letters, the same bytes each time."""

import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Figure:
    """A drawing with its title, and what it shows in words; it is drawn when it is asked for."""

    title: str
    description: str
    """For whoever cannot see it."""
    draw: Callable[[Any], None]
    """Draws on the axes it is given: one, or a list of them."""
    height: float
    """In inches."""
    rows: int = 1
    """Of axes."""
    columns: int = 1

    @functools.cached_property
    def svg(self) -> str:
        """The drawing, as an element of a page."""
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas

        with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # letters that matplotlib has no measure of are the browser's
            figure = Canvas(figsize=(WIDTH, self.height), layout="constrained")
            axes = figure.subplots(self.rows, self.columns, squeeze=False)
            self.draw(axes[0, 0] if self.rows * self.columns == 1 else list(axes.flat))
            written = io.StringIO()
            metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            FigureCanvasSVG(figure).print_svg(written, metadata=metadata)
        return _inlined(written.getvalue())


def with_own_names(svg: str, own: str) -> str:
    """Return a drawing whose parts have a name only where they are referred to, and none that another drawing has.

    Args:
        svg: a drawing.
        own: what begins its names, and no other drawing's.
    """
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r" id=\"([^\"]*)\"", lambda found: f' id="{own}{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r"(url\(#|href=\"#)", rf"\g<1>{own}", svg)


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
    svg = re.sub(r"font(?:-family)?: [^;\"]*(?:sans-serif|DejaVu)[^;\"]*", _font, svg)
    svg = re.sub(r"(\d+\.\d{2})\d+", r"\1", svg)  # hundredths of a point are finer than any screen
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _font(found: re.Match[str]) -> str:
    """Keep size and weight of a font, and leave the letters to the page."""
    size = re.search(r"[\d.]+px", found[0])
    weight = re.search(r"\b(bold|[5-9]00)\b", found[0])
    kept = [f"font-size: {size[0]}"] if size else []
    return "; ".join([*kept, *(["font-weight: 650"] if weight else [])]) or "font-style: normal"
