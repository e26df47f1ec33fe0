"""Goals on one H200, and whether figures meet them."""

import dataclasses
from collections.abc import Mapping

from milan_pipeline.codecs.registry import LEVELS, PLAIN

MET, NOT_MET, NOT_RUN = "met", "not met", "not run"
CODECS = (*PLAIN, *LEVELS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal: the least or the most that figures are to be.

    Attributes:
        name: in words.
        figures: of each alternative that is good enough by itself, the figures that all must reach.
        wanted: the value.
        at_most: whether the value is the most, and not the least.
    """

    name: str
    figures: tuple[tuple[str, ...], ...]
    wanted: float
    at_most: bool = False

    def measured(self, figures: Mapping[str, float]) -> float | None:
        """Return the worst figure of the best alternative; None if none was measured whole."""
        best, worst = (min, max) if self.at_most else (max, min)
        whole = [names for names in self.figures if all(name in figures for name in names)]
        return best((worst(figures[name] for name in names) for names in whole), default=None)

    def state(self, figures: Mapping[str, float], *, on_gpu: bool) -> str:
        """Return whether the goal is met, not met, or was not run; elsewhere it is none."""
        found = self.measured(figures)
        if found is None or not on_gpu:
            return NOT_RUN
        reached = found <= self.wanted if self.at_most else found >= self.wanted
        return MET if reached else NOT_MET


def _teacher(size: str) -> tuple[tuple[str, ...], ...]:
    kinds = ((precision, way) for precision in ("bf16", "fp16") for way in ("compiled", "eager"))
    return tuple((f"teacher {size} {precision} {way}, images/s",) for precision, way in kinds)


def _shares(size: str) -> tuple[tuple[str, ...], ...]:
    return (tuple(f"extraction {size} {name}, share of the bare teacher" for name in CODECS),)


GOALS = (
    Goal(name="teacher B/16, images/s", figures=_teacher("B/16"), wanted=12_300),
    Goal(name="teacher L/14, images/s", figures=_teacher("L/14"), wanted=2_650),
    Goal(name="extraction B/16, share of the teacher", figures=_shares("B/16"), wanted=0.9),
    Goal(name="extraction L/14, share of the teacher", figures=_shares("L/14"), wanted=0.9),
    Goal(
        name="student B/16, images/s",
        figures=(("student B/16 compiled, images/s",), ("student B/16 eager, images/s",)),
        wanted=6_100,
    ),
    Goal(
        name="step over one with its teacher online, B/16",
        figures=(("step B/16, stored over online B/16",),),
        wanted=1.45,
    ),
    Goal(
        name="step over one with its teacher online, L/14",
        figures=(("step B/16, stored over online L/14",),),
        wanted=2.7,
    ),
    Goal(
        name="data wait, share of the time",
        figures=(("step B/16 from shards, data wait",),),
        wanted=0.03,
        at_most=True,
    ),
    Goal(
        name="decoding of targets, images/s",
        figures=(tuple(f"decode {name}, images/s" for name in CODECS),),
        wanted=60_000,
    ),
)
