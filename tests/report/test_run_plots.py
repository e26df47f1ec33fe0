"""Plots of runs, whatever the runs are called."""

from pathlib import Path

import numpy as np

from milan_pipeline.report.run.facts import RunReport
from milan_pipeline.report.run_plots import plot_runs


def run(name: str) -> RunReport:
    history = {"step": np.arange(3.0), "epoch": np.arange(3.0), "loss": np.ones(3)}
    return RunReport(
        folder=Path(name), name=name, record={}, state=None, history=history, evaluations={},
        results=[],
    )  # fmt: skip


def test_a_name_that_is_not_utf_8_is_written_by_its_bytes() -> None:
    (plot,) = plot_runs([run(name) for name in ("k\udce4", "$a$", "_b")])
    assert plot.title == "Loss"
