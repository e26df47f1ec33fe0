"""Options that several commands have, each declared once: a command says what is its own."""

from typing import Any

from milan_pipeline.cli.options import AUTO, option
from milan_pipeline.codecs.registry import CODEC_CHOICES, codec_names


def device(what_runs: str) -> Any:
    """Declare `--device`; its help begins with `what_runs`, such as "Where the teacher runs"."""
    text = f"{what_runs}: auto, cpu, cuda."
    return option("auto", help=text, role="execution", group="This machine")


def threads(more: str = "") -> Any:
    """Declare `--threads` of a command that computes; `more` begins with a space."""
    text = (
        "Threads that compute in each process; auto: one for each core that the process may use, "
        "at most OMP_NUM_THREADS, which torchrun sets to 1 for several processes. The last bits of "
        f"results depend on the number.{more}"
    )
    return option(AUTO, help=text, role="execution", least=1, group="This machine", unit="threads")


def workers(text: str, *, unit: str = "threads") -> Any:
    """Declare `--workers`, threads or processes."""
    return option(2, help=text, role="execution", least=0, group="This machine", unit=unit)


def batch_size(text: str) -> Any:
    """Declare `--batch-size` of a model that is not trained: images at a time."""
    return option(64, help=text, role="execution", least=1, group="This machine", unit="images")


def overwrite(text: str) -> Any:
    """Declare `--overwrite`."""
    return option(False, help=text, role="execution", group="Output")


def allow_unfinished(text: str, *, group: str = "Input") -> Any:
    """Declare `--allow-unfinished`."""
    return option(False, help=text, role="execution", group=group)


def max_bad_fraction(*, always: str = "one is", more: str = "") -> Any:
    """Declare `--max-bad-fraction`.

    Args:
        always: how many unreadable images are allowed of any number.
        more: what is true of this command alone, beginning with a space.
    """
    text = "Largest share of images that may be unreadable; above 0, "
    return option(
        0.01,
        help=f"{text}{always} always allowed.{more}",
        role="execution",
        least=0,
        most=1,
        group="Input",
        unit="share",
    )


def codec(default: Any, *, text: str = "How targets are stored", more: str = "") -> Any:
    """Declare `--codec`; its help is `text`, the choices and `more`, which begins with "; "."""
    return option(
        default, help=f"{text}: {CODEC_CHOICES}{more}.", group="Targets", complete=codec_names
    )


def stored_views(text: str) -> Any:
    """Declare `--views` of a store that exists; without it, all."""
    return option(
        None, help=f"{text}; default: all.", role="extent", least=1, group="Input", unit="views"
    )


def crop_pct(text: str) -> Any:
    """Declare `--crop-pct` of the view that is scored."""
    return option(
        None,
        help=f"{text}; default: 0.875 up to 224 pixels, else 1.",
        group="Scoring",
        unit="share",
    )
