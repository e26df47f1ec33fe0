"""Draw the results of codecs: bits against loss, and the spectrum of the targets.

Only this module imports matplotlib, since that takes a second.

Legend: D target width.
"""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.codecs.spectrum import effective_rank, gaussian_bound
from milan_pipeline.planning.codec_measures import BITS, EXACT, CodecMeasures

# Colours of Okabe and Ito, which colour-blind people can tell apart.
BLUE, GREEN, BLACK, GREY = "#0072B2", "#009E73", "#000000", "#777777"
FAMILIES = {"joint": (BLUE, "o"), "rotation": (GREEN, "^")}
OTHERS = (BLACK, "D")
BOUND_POINTS = 200
MOST_DISTORTION = 0.999
DPI = 110


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """One set of targets: its title, the variances (D,) of its components, and its codecs."""

    title: str
    variance_D: NDArray[np.float64]
    measures: Sequence[CodecMeasures]


def draw(sets: Sequence[Drawn]) -> bytes:
    """Return a PNG with a row for each set: the frontier beside the spectrum."""
    figure = Figure(figsize=(10, 4.6 * len(sets)), layout="constrained")
    grid = figure.subplots(len(sets), 2, squeeze=False, width_ratios=(2.4, 1))
    for (frontier, spectrum), drawn in zip(grid, sets, strict=True):
        _draw_frontier(frontier, drawn)
        _draw_spectrum(spectrum, drawn.variance_D)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _draw_frontier(axes: Axes, drawn: Drawn) -> None:
    shown = [one for one in drawn.measures if _loss(one) > EXACT]
    for family, (colour, marker) in FAMILIES.items():
        points = sorted(_point(one) for one in shown if parse_codec(one.codec).name == family)
        label = family if points else None
        axes.plot(*_columns(points), color=colour, marker=marker, markersize=4, label=label)
    for one in shown:
        if ":" not in one.codec:  # a level, or a codec without options
            colour, marker = FAMILIES.get(parse_codec(one.codec).name, OTHERS)
            axes.plot(*_point(one), color=colour, marker=marker, markersize=8, linestyle="none")
            axes.annotate(
                one.codec,
                _point(one),
                xytext=(-5, -5),
                textcoords="offset points",
                horizontalalignment="right",
                verticalalignment="top",
            )
    axes.plot(*_columns(_bound(drawn)), color=GREY, linestyle="--", label="Gaussian bound")
    axes.set(title=drawn.title, xlabel="bits a token", ylabel="1 - mean cosine")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"{bits:g}"))
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")


def _draw_spectrum(axes: Axes, variance_D: NDArray[np.float64]) -> None:
    rank = effective_rank(variance_D)
    axes.plot(np.arange(1, len(variance_D) + 1), variance_D, color=BLACK)
    axes.set(
        title=f"effective rank {rank:.0f} of {len(variance_D)}",
        xlabel="component of directions",
        ylabel="variance",
    )
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _bound(drawn: Drawn) -> list[tuple[float, float]]:
    """Return bits and losses on the bound: a loss 1 - m is a distortion of 1 - m².

    From half of the fewest bits that a codec takes to the least loss that one has.
    """
    lossy = [_point(one) for one in drawn.measures if _loss(one) > EXACT]
    total = float(drawn.variance_D.sum())
    fewest = min((bits for bits, _ in lossy), default=0) / 2
    least = min((1 - (1 - loss) ** 2 for _, loss in lossy), default=total / 100)
    points = [
        (gaussian_bound(drawn.variance_D, distortion)[0], float(1 - np.sqrt(1 - distortion)))
        for distortion in np.geomspace(least, min(total, MOST_DISTORTION), BOUND_POINTS)
    ]
    return [(bits, loss) for bits, loss in points if bits >= fewest]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _point(measures: CodecMeasures) -> tuple[float, float]:
    return BITS * measures.bytes_per_token, _loss(measures)


def _loss(measures: CodecMeasures) -> float:
    return 1 - measures.mean_cosine
