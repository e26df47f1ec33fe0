"""Turns matplotlib's figures into inline SVG: text stays text, colours follow the page's scheme.

Figures are drawn with stand-in colours, each of which becomes a CSS variable of the page. The same
picture as a file of its own has the page's light colours in it.
"""

import dataclasses
import importlib.resources
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TEXT, GRID = "#010101", "#020202"
SERIES = ("#100001", "#100002", "#100003", "#100004", "#100005", "#100006")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
"""One a series beside its colour: no series is recognised by colour alone."""
VARIABLES = {TEXT: "--ink", GRID: "--rule"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
INCHES = (3.5, 2.5)
ALONE = 'width="560" height="400" style="background: #fff"'
"""Of a file: its pixels; on a page, the page says how large a plot is."""
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": GRID,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot of the page: its title, what it shows in words, and its inline SVG."""

    title: str
    words: str
    svg: str

    @property
    def file(self) -> str:
        """The picture as an SVG file, in the light colours of pages, on white."""
        css = importlib.resources.files(__package__).joinpath("page.css").read_text("utf-8")
        text = self.svg.replace('aria-hidden="true" focusable="false"', ALONE, 1)
        for variable, colour in re.findall(r"(--[\w-]+): (#\w+);", css[: css.index("}")]):
            text = text.replace(f"var({variable})", colour)
        return text.strip() + "\n"


def draw(title: str, words: str, onto: Callable[[Axes], None]) -> Plot:
    """Draw one plot.

    Args:
        title: above it.
        words: what one would see; the text in the picture's place.
        onto: draws onto the axes.
    """
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=True, linewidth=0.6)
        onto(axes)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Plot(title=title, words=words, svg=_inline(buffer.getvalue(), title))


def _inline(text: str, title: str) -> str:
    """Cut a document down to what HTML takes; ids that many figures share become this one's own."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    own = re.sub(r"\W+", "-", title.lower())
    for before in (' id="', 'xlink:href="#', "url(#"):
        text = text.replace(before, f"{before}{own}-")
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
