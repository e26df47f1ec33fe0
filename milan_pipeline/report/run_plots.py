"""Plots of what runs have logged, several runs on shared axes.

Legend: S logged steps, B points of a curve.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from milan_pipeline.core.console import short_bytes
from milan_pipeline.report.run.facts import RunReport
from milan_pipeline.report.run.history import History, curve, data_wait_share
from milan_pipeline.report.svg import DASHES, SERIES, Plot, draw

MOST_RUNS = len(SERIES)
SCORES = {"top1": "top-1 %", "miou": "mIoU %"}
Line = tuple[int, str, NDArray[np.float64], NDArray[np.float64]]
"""A run's number, its name, and where its line goes."""
Column = Callable[[History], NDArray[np.float64]]
Wanted = tuple[str, str, str, Column]
"""Title, label and unit of a plot, and what it shows."""


def plot_runs(runs: Sequence[RunReport]) -> list[Plot]:
    """Plot scores, loss, rate, speed, waiting, memory by epoch; what no run tells is left out."""
    wanted: list[Wanted] = [
        ("Loss", "loss", "", _column("loss")),
        *_teachers(runs),
        ("Learning rate", "learning rate", "", _column("lr")),
        ("Throughput", "images/s", "", _column("images_per_second")),
        ("Waiting for data", "share of a step's time", "%", data_wait_share),
        ("Memory of the first process", "peak so far", "bytes", _column("memory_bytes")),
        ("GPU memory of the first process", "peak so far", "bytes", _column("cuda_memory_bytes")),
        ("Gradient norm", "before clipping", "", _column("grad_norm")),
    ]
    plots = [_validation(runs), *(_plot(runs, *one) for one in wanted)]
    return [plot for plot in plots if plot is not None]


def _teachers(runs: Sequence[RunReport]) -> list[Wanted]:
    """Return a plot for each teacher whose loss runs have logged."""
    names = dict.fromkeys(name for run in runs for name in run.history)
    parts = [name for name in names if name.startswith("loss/")]
    return [(f"Loss of {name.partition('/')[2]}", "loss", "", _column(name)) for name in parts]


def _column(name: str) -> Column:
    return lambda history: history.get(name, np.zeros(0))


def _plot(
    runs: Sequence[RunReport], title: str, label: str, unit: str, column: Column
) -> Plot | None:
    lines: list[Line] = []
    for number, run in enumerate(runs):
        if (points := curve(run.history, column(run.history))) is not None:
            lines.append((number, run.name, *points))
    return _drawn(title, label, unit, lines, several=len(runs) > 1)


def _validation(runs: Sequence[RunReport]) -> Plot | None:
    """Plot the score by which each run chose its best weights."""
    lines, labels = [], {}
    for number, run in enumerate(runs):
        key = next((key for key in SCORES if key in run.evaluations), "")
        points = curve(run.evaluations, run.evaluations.get(key, np.zeros(0)))
        if points is not None:
            lines.append((number, run.name, *points))
            labels[SCORES[key]] = True
    return _drawn("Validation", " or ".join(labels), "", lines, several=len(runs) > 1)


def _drawn(
    title: str, label: str, unit: str, lines: Sequence[Line], *, several: bool
) -> Plot | None:
    if not lines:
        return None

    def onto(axes: Axes) -> None:
        for number, name, x_B, y_B in lines:
            axes.plot(
                x_B, y_B, label=_plain(name), color=SERIES[number], linestyle=DASHES[number],
                marker="o" if len(x_B) == 1 else "",
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel=label)
        if unit == "%":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_ylim(0, None)
        elif unit == "bytes":
            axes.yaxis.set_major_formatter(lambda size, _: short_bytes(max(0, size)))
            axes.set_ylim(0, None)
        if several:
            axes.legend()

    return draw(title, _words(title, unit, lines), onto)


def _words(title: str, unit: str, lines: Sequence[Line]) -> str:
    ends = [
        (name, *(_value(float(value), unit) for value in (y_B[0], y_B[-1])))
        for _, name, _, y_B in lines
    ]
    if len(ends) == 1:
        return f"{title} over epochs: from {ends[0][1]} to {ends[0][2]}."
    changes = "; ".join(f"{name} from {first} to {last}" for name, first, last in ends)
    return f"{title} over epochs: {changes}."


def _value(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1%}"
    return short_bytes(value) if unit == "bytes" else f"{value:.4g}"


def _plain(name: str) -> str:
    """Keep matplotlib from reading a name as mathematics, as no label or as no text."""
    name = name.encode(errors="backslashreplace").decode()
    return name.replace("$", r"\$").lstrip("_") or "run"
