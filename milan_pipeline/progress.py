"""One progress bar for everything that takes more than a few seconds."""

from typing import Any

from tqdm import tqdm

from milan_pipeline.messages import is_quiet

LINE = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_noinv_fmt}]"
)
"""Seconds an image would be another unit than images a second, so the rate is never turned over."""


def progress_bar(
    description: str, *, total: int, initial: int = 0, shown: bool = True, unit: str = "images"
) -> "tqdm[Any]":
    """Open a bar that counts, shows the rate and the time left; silent off a terminal.

    It stays one line, however narrow the terminal is or becomes.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        bar_format=LINE,
        dynamic_ncols=True,
        disable=None if shown and not is_quiet() else True,
    )
