"""A recorded case, and our deviations from it."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from milan_pipeline.errors import DataError

NUMBER = re.compile(r"\d+(?:\.\d+)?e[-+]?\d+")


class Deviation(NamedTuple):
    """One line of the table."""

    what: str
    official: float
    ours: float
    kind: str  # "abs" or "rel"
    deviation: float
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the line is within tolerance; NaN is not."""
        return self.deviation <= self.tolerance


class Case(NamedTuple):
    """A recorded case: tensors by part (`state`, `io`, `out`, `final`), and the JSON's values."""

    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights at the start, under official names."""
        return self.tensors["state"]

    @property
    def io(self) -> dict[str, Tensor]:
        """The inputs."""
        return self.tensors["io"]

    @property
    def out(self) -> dict[str, Tensor]:
        """What was recorded during training."""
        return self.tensors["out"]

    @property
    def final(self) -> dict[str, Tensor]:
        """The weights at the end."""
        return self.tensors["final"]

    @property
    def settings(self) -> dict[str, Any]:
        """How it was computed."""
        settings: dict[str, Any] = self.values["settings"]
        return settings

    def tolerance(self, name: str) -> float:
        """Return the tolerance of a name.

        It is the last number in scientific notation in the name's sentence in `tolerances`; "equal"
        without such a number is 0.

        Raises:
            DataError: it says neither.
        """
        said = {
            each: str(sentence)
            for names, sentence in self.values["tolerances"].items()
            for each in names.split(", ")
        }[name]
        numbers = NUMBER.findall(said)
        if not numbers and not said.startswith("equal"):
            raise DataError(f"the tolerance of {name!r}, {said!r}, has no number; write 1e-6")
        return float(numbers[-1]) if numbers else 0.0

    def require(self, **wanted: Any) -> None:
        """Refuse a case whose settings our code does not have.

        Raises:
            DataError: one of them is another.
        """
        for name, value in wanted.items():
            if self.settings.get(name, value) != value:
                raise DataError(
                    f"the case has {name} {self.settings[name]!r}, and ours knows {value!r} alone; "
                    "record it so"
                )


def read_case(path: Path) -> Case:
    """Read CASE.safetensors and CASE.json.

    Raises:
        DataError: a file is missing or not of the format.
    """
    try:
        tensors = load_file(path)
        values = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(
            f"{path} and the .json beside it are no parity case ({error}); name the .safetensors"
        ) from error
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    return Case(parts, values)


def largest(what: str, official: Tensor, ours: Tensor, tolerance: float) -> Deviation:
    """Compare two tensors where they differ most."""
    _require_shape(what, official, ours)
    difference = (ours.double() - official.double()).abs().flatten()
    place = difference.argmax()
    theirs, own = (float(tensor.flatten()[place]) for tensor in (official, ours))
    return Deviation(what, theirs, own, "abs", float(difference[place]), tolerance)


def most_relative(what: str, official: Tensor, ours: Tensor, tolerance: float) -> Deviation:
    """Compare two tensors where they differ most as a share of the official value.

    Where the official value is 0, ours must be 0.
    """
    _require_shape(what, official, ours)
    theirs, own = official.double().flatten(), ours.double().flatten()
    share = ((own - theirs).abs() / theirs.abs()).where(theirs != own, 0.0)
    place = share.argmax()
    return Deviation(
        what, float(theirs[place]), float(own[place]), "rel", float(share[place]), tolerance
    )


def moved(what: str, start: Tensor, official: Tensor, ours: Tensor, tolerance: float) -> Deviation:
    """Compare a tensor's value after training, relative to its official change."""
    _require_shape(what, official, ours)
    way, own = (float((t.double() - start.double()).norm()) for t in (official, ours))
    missed = float((ours.double() - official.double()).norm())
    share = missed / way if way else (0.0 if missed == 0 else float("inf"))
    return Deviation(f"{what} moved by", way, own, "rel", share, tolerance)


def _require_shape(what: str, official: Tensor, ours: Tensor) -> None:
    if official.shape != ours.shape:
        raise DataError(
            f"{what} is of shape {tuple(official.shape)} there and {tuple(ours.shape)} here; "
            "record the case again"
        )
