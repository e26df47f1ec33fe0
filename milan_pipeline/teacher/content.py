"""The teacher's parts of the identity: everything that changes targets, except for the weights."""

from typing import Any, Protocol

from milan_pipeline.images.statistics import Statistics
from milan_pipeline.images.views import Interpolation, pixels_words
from milan_pipeline.teacher.spec import TeacherSpec


class Outline(Protocol):
    """What the identity says of a tower; see `tower.Tower`."""

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""

    @property
    def widths(self) -> dict[str, int]:
        """Width of a token in each space."""

    @property
    def pooling(self) -> str:
        """How the image's feature is made."""

    @property
    def heads(self) -> int | None:
        """Number of heads of the last attention."""

    @property
    def pool_attention(self) -> object | None:
        """The module whose only query pools the tokens."""

    @property
    def activation(self) -> str | None:
        """Class of the non-linearity."""


def teacher_content(
    settled: TeacherSpec, tower: Outline, *, names: dict[str, Any], architecture: str | None
) -> dict[str, Any]:
    """Return the part called `teacher`, with the licence, if that is known.

    Args:
        settled: nothing in it is "auto", but for the precision where no target is made.
        tower: that of the model.
        names: of the model and its weights, as its source has them.
        architecture: hash of the model's configuration; None without one.

    Heads, activation and pooling do not follow from the weights, and a local folder may change
    them. They are recorded for readers; the hash of the architecture covers these and all others.
    """
    return {
        **names,
        "architecture": architecture,
        "heads": tower.heads,
        "pooling": tower.pooling,
        "pool_heads": getattr(tower.pool_attention, "num_heads", None),
        "activation": tower.activation,
        "precision": settled.precision,
        "compiled": settled.compile,
        "grid": list(tower.grid),
        "layers": settled.layers,
        "space": settled.space,
        "width": tower.widths[settled.space],
        "prior": settled.prior,
    }


def preprocessing(
    size: int, statistics: Statistics, interpolation: Interpolation = "bicubic"
) -> dict[str, Any]:
    """Return the part on the tower's input.

    Args:
        size: pixels along a side.
        statistics: mean and std of the pixels.
        interpolation: by which images are resized.
    """
    return {"pixels": pixels_words(interpolation), "size": size, **statistics._asdict()}
