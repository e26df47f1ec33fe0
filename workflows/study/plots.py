"""Plots of a study, with the spread over seeds: bars of its rows, and curves over views.

Rows that have no views are levels beside the curves.
"""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from milan_pipeline.report.svg import DASHES, SERIES, TEXT, Plot, draw
from workflows.study.results import Cell, Table
from workflows.study.spec import Arm, Study

MOST_LETTERS = 28


def plots_of(study: Study, table: Table) -> list[Plot]:
    """Draw each measure: over views where several are trained on, else a bar for each row."""
    found = []
    for title in study.measures:
        cells = {row: by_title[title] for row, by_title in table.items() if by_title[title].by_seed}
        curves = curves_of(study, cells)
        if any(len(points) > 1 for points in curves.values()):
            levels = {n: c for n, c in cells.items() if views_of(study.rows[n]) is None}
            found.append(_over_views(title, curves, levels))
        elif cells:
            found.append(_bars(title, cells))
    return found


Curve = list[tuple[int, Cell]]
"""Cells by the number of views."""


def curves_of(study: Study, cells: Mapping[str, Cell]) -> dict[str, Curve]:
    """Join arms that differ in their views alone, the fewest first."""
    curves: dict[str, Curve] = {}
    for name, row in study.rows.items():
        views = views_of(row)
        if views is not None and name in cells:
            label = ", ".join(
                part for part in name.split(", ") if not part.endswith((" view", " views"))
            )
            curves.setdefault(label, []).append((views, cells[name]))
    return {label: sorted(points, key=lambda point: point[0]) for label, points in curves.items()}


def views_of(row: Arm | str) -> int | None:
    """Return how many views a row learns from; None if it learns no targets."""
    return row.views if isinstance(row, Arm) else None


def _spread(cell: Cell) -> float:
    return 0.0 if math.isnan(cell.spread) else cell.spread


def _over_views(title: str, curves: Mapping[str, Curve], levels: Mapping[str, Cell]) -> Plot:
    def onto(axes: Axes) -> None:
        for number, (label, points) in enumerate(curves.items()):
            axes.errorbar(
                [views for views, _ in points],
                [cell.mean for _, cell in points],
                yerr=[_spread(cell) for _, cell in points],
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[number % len(DASHES)],
                marker="o",
                markersize=3,
                capsize=2,
                label=label,
            )
        for number, (name, cell) in enumerate(levels.items()):
            dashes = DASHES[(number + 1) % len(DASHES)]
            axes.axhline(cell.mean, color=TEXT, linewidth=0.8, linestyle=dashes, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(views := sorted({v for points in curves.values() for v, _ in points}))
        axes.set_xticklabels([str(each) for each in views])
        axes.set_xlabel("views")
        axes.set_ylabel("per cent")
        if len(curves) + len(levels) > 1:
            axes.legend(fontsize="small")

    last = {name: points[-1][1] for name, points in curves.items()}
    return draw(title, _words(title, last | dict(levels)), onto)


def _bars(title: str, cells: Mapping[str, Cell]) -> Plot:
    def onto(axes: Axes) -> None:
        places = range(len(cells))
        axes.barh(
            list(places),
            [cell.mean for cell in cells.values()],
            xerr=[_spread(cell) for cell in cells.values()],
            color=SERIES[0],
            capsize=2,
        )
        axes.set_yticks(list(places), [name[:MOST_LETTERS] for name in cells])
        axes.invert_yaxis()
        axes.set_xlabel("per cent")
        axes.set_xlim(0, 100)

    return draw(title, _words(title, cells), onto)


def _words(title: str, cells: Mapping[str, Cell]) -> str:
    return f"{title}, per cent: " + "; ".join(f"{name} {cell}" for name, cell in cells.items())
