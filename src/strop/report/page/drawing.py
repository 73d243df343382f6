"""Matplotlib's figures as SVG that stands inside a page: in the page's own colours and letters, the same bytes each time."""

import contextlib
import contextvars
import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.files import replacing_file

WIDTH = 5.2
"""Inches: narrow, so that letters are still read where a telephone shrinks the figure."""

PLACEHOLDERS = {
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
"""The page's colours by name, and what stands for each until the page gives it its own: nothing else has these."""

PRINTED = {
    "ink": "#16191d",
    "muted": "#5a6472",
    "line": "#d9dee5",
    "accent": "#0b6b5e",
    "before": "#6b7280",
    "worse": "#b3261e",
    "soft": "#8fb9b2",
    "paper": "#ffffff",
    "one": "#8cc6bc",
    "two": "#57a89b",
    "three": "#2b887b",
    "four": "#0b6b5e",
    "five": "#084d57",
    "six": "#1b2f4b",
}
"""The same as the light page has them, for a figure that stands alone."""

_IN_FORCE = contextvars.ContextVar("colours", default=PLACEHOLDERS)


class _Colours(Mapping[str, str]):
    """The colours in force by name: the page's, or those of a figure that stands alone while one is drawn."""

    def __getitem__(self, name: str) -> str:
        return _IN_FORCE.get()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_IN_FORCE.get())

    def __len__(self) -> int:
        return len(_IN_FORCE.get())


COLOURS = _Colours()

SERIES = ("one", "two", "three", "four", "five", "six")
"""Colours of lines that belong together, from light to dark."""


def _settings() -> dict[str, Any]:
    return {
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
        written = io.StringIO()
        with _drawing_in(PLACEHOLDERS):
            _canvas_of("svg", self._drawn()).print_svg(written, metadata=_NOTHING)
        return _inlined(written.getvalue())

    def write(self, path: Path) -> None:
        """Write the drawing with its title as a file that stands alone, the same bytes each time.

        Args:
            path: of the file; it ends in .svg or .png.
        """
        with _drawing_in(PRINTED), replacing_file(path) as temporary:
            figure = self._drawn()
            figure.suptitle(self.title, x=0.01, ha="left", fontsize="medium", fontweight="bold", wrap=True)
            figure.set_size_inches(WIDTH, self.height + 0.35)
            if path.suffix == ".svg":
                _canvas_of("svg", figure).print_svg(temporary, metadata=_NOTHING)
            else:
                _canvas_of("agg", figure).print_png(temporary, metadata={"Software": None})

    def _drawn(self) -> Any:
        """Return it as matplotlib's figure, in the colours in force."""
        from matplotlib.figure import Figure as Canvas

        figure = Canvas(figsize=(WIDTH, self.height), layout="constrained", dpi=200)
        axes = figure.subplots(self.rows, self.columns, squeeze=False)
        self.draw(axes[0, 0] if self.rows * self.columns == 1 else list(axes.flat))
        return figure


_NOTHING = dict.fromkeys(("Date", "Creator", "Format", "Type"))
"""What SVG says of itself."""


def _canvas_of(kind: str, figure: Any) -> Any:
    if kind == "svg":
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        return FigureCanvasSVG(figure)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(figure)


@contextlib.contextmanager
def _drawing_in(colours: dict[str, str]) -> Iterator[None]:
    """Let figures be drawn in these colours."""
    import matplotlib

    before = _IN_FORCE.set(colours)
    alone = {"svg.fonttype": "path", "figure.facecolor": colours["paper"]} if colours is PRINTED else {}
    try:
        with matplotlib.rc_context({**_settings(), **alone}), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # letters that matplotlib has no measure of are the browser's
            yield
    finally:
        _IN_FORCE.reset(before)


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
    for name, colour in PLACEHOLDERS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _font(found: re.Match[str]) -> str:
    """Keep size and weight of a font, and leave the letters to the page."""
    size = re.search(r"[\d.]+px", found[0])
    weight = re.search(r"\b(bold|[5-9]00)\b", found[0])
    kept = [f"font-size: {size[0]}"] if size else []
    return "; ".join([*kept, *(["font-weight: 650"] if weight else [])]) or "font-style: normal"
