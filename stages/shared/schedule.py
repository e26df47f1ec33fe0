"""How long a schedule is: what fits it, and that a run keeps its own."""

from collections.abc import Mapping
from typing import Any

from milan_pipeline.errors import ConfigError, MismatchError


def require_warmup(warmup_epochs: float | None, epochs: float) -> None:
    """Refuse a warm-up that is not within the schedule.

    Raises:
        ConfigError: it is not.
    """
    if warmup_epochs is not None and not 0 <= warmup_epochs < epochs:
        remedy = "give less" if warmup_epochs > 0 else "give 0 for none"
        raise ConfigError(
            f"--warmup-epochs {warmup_epochs} is not within 0 and --epochs {epochs}; {remedy}"
        )


def require_same_epochs(out: str, epochs: int | None, previous: Mapping[str, Any]) -> None:
    """Refuse to make a run longer or shorter: its learning rate has followed its own schedule.

    A warm-up that an earlier run chose need not fit other epochs, so this comes first.

    Args:
        out: the run's folder.
        epochs: that are asked for; None where something else sets the length.
        previous: the record in the folder; its content is empty where there is none.

    Raises:
        MismatchError: the epochs differ.
    """
    before = previous["content"].get("epochs")
    if before is None or epochs is None or before == epochs:
        return
    is_longer = epochs > before
    remedy = "give another --out"
    if previous["state"] != "done":
        sooner = "" if is_longer else ", with --max-steps to stop earlier"
        remedy = f"give --epochs {before} to go on{sooner}, or another --out"
    elif is_longer and previous["stage"] == "pretrain":
        remedy = f"for more, give another --out and --init {out}: a new schedule from its weights"
    raise MismatchError(
        f"--epochs {epochs} does not fit {out}, a run of {before} epochs, over which its learning "
        f"rate falls; {remedy}"
    )
