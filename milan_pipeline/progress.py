"""One progress bar for everything that takes more than a few seconds."""

from typing import Any

from tqdm import tqdm


def progress_bar(
    description: str, *, total: int, initial: int = 0, shown: bool = True, unit: str = "images"
) -> "tqdm[Any]":
    """Open a bar that counts, shows the rate and the time left; silent off a terminal."""
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=unit,
        dynamic_ncols=True,
        disable=None if shown else True,
    )
