"""A teacher's model by its name, whatever library it is of: its image tower, ready to be used."""

import functools
import logging
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import Statistics
from milan_pipeline.images.views import Interpolation
from milan_pipeline.teacher.configuration import require_no_folder
from milan_pipeline.teacher.sources.open_clip_model import OpenClipModel
from milan_pipeline.teacher.sources.pretraining_run import PretrainingRun
from milan_pipeline.teacher.sources.timm_by_name import TimmModelByName
from milan_pipeline.teacher.spec import RUN, TIMM, TeacherSpec
from milan_pipeline.teacher.tower_of_model import tower_of
from milan_pipeline.teacher.tower_open_clip import ResNetTower

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Where a teacher's model comes from.

    Each tower that it builds has the hash of its configuration as the attribute `architecture`. A
    size is that of the input, in pixels a side; None is the model's own.
    """

    def identity(self) -> dict[str, Any]:
        """Return how the identity names the model: `name`, `pretrained`, `license` if known."""

    def statistics(self) -> Statistics:
        """Return mean and std of the pixels.

        Raises:
            ConfigError: they are not known, or cannot be.
        """

    def interpolation(self) -> Interpolation:
        """Return by which views are resized for it."""

    def outline(self) -> Any:
        """Build the tower at its own size, for shapes alone."""

    def blank(self, size: int | None) -> Any:
        """Build the tower on torch's meta device, which has shapes but no values."""

    def untrained(self, size: int | None) -> Any:
        """Build the tower with random weights."""

    def require_loadable(self) -> None:
        """Refuse what is known not to be loadable, before anything is.

        Raises:
            ConfigError: it is so.
        """

    def trained(self, size: int | None) -> Any:
        """Load the tower, in fp32, on the CPU.

        Raises:
            ConfigError: the model or its weights cannot be loaded, or do not fit each other.
        """


def source_of(spec: TeacherSpec) -> Source:
    """Return where a teacher comes from.

    Raises:
        ConfigError: there is no such model.
    """
    if spec.name.startswith(TIMM):
        return TimmModelByName(spec)
    if spec.name.startswith(RUN):
        return PretrainingRun(spec)
    return OpenClipModel(spec)


def require_weights(spec: TeacherSpec) -> None:
    """Refuse a teacher whose name alone does not tell which weights are meant.

    Raises:
        ConfigError: `--pretrained` is needed, or it is a folder without what it is of.
    """
    require_no_folder(spec.name)
    if spec.pretrained is None and ":" not in spec.name:
        raise ConfigError(
            f"--teacher {spec.name!r} comes with weights of several kinds; give --pretrained, for "
            "example openai"
        )


def load_visual(spec: TeacherSpec) -> nn.Module:
    """Load the image tower of a model, in fp32, on the CPU.

    Position embeddings are resampled for `spec.grid` as open_clip and timm do it for another image
    size. The tower's `preprocess_cfg` has the mean and std of its pixels, and `architecture_of`
    returns the hash of its configuration.

    Raises:
        ConfigError: the model or its weights cannot be loaded, or are known not to fit each other.
    """
    source = source_of(spec)
    require_weights(spec)
    source.require_loadable()
    wanted = _wanted_input(spec, source)
    visual = source.trained(wanted.size)
    visual.resampled = wanted.resampled or is_resampled(visual)
    return _labelled(visual, source)


def untrained_visual(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of a model with random weights, always the same ones.

    Raises:
        ConfigError: there is no such model, or it cannot be built.
    """
    source = source_of(spec)
    size = _wanted_input(spec, source).size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = source.untrained(size)
    return _labelled(visual, source)


def blank_visual(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of a model on torch's meta device, which has shapes but no values.

    Raises:
        ConfigError: there is no such model, or it cannot be built.
    """
    source = source_of(spec)
    return _labelled(source.blank(_wanted_input(spec, source).size), source)


def is_resampled(visual: nn.Module) -> bool:
    """Tell whether position embeddings were resampled, for a grid or from a file of another."""
    return bool(getattr(visual, "resampled", False))


def architecture_of(visual: nn.Module) -> str | None:
    """Return the hash of the configuration that a tower was built from; None without one."""
    return getattr(visual, "architecture", None)


def interpolation_of(visual: nn.Module) -> Interpolation:
    """Return by which views are resized for a tower; bicubic where it was not loaded by name."""
    found: Interpolation = getattr(visual, "interpolation", "bicubic")
    return found


def names_of(visual: nn.Module, spec: TeacherSpec) -> dict[str, Any]:
    """Return how the identity names a tower and its weights, with their licence if it is known."""
    found: dict[str, Any] = getattr(visual, "names", spec.names_in_identity)
    return found


def _labelled(visual: Any, source: Source) -> nn.Module:
    """Set mean, std and interpolation of a tower's pixels, and its names, as its attributes."""
    visual.preprocess_cfg = source.statistics()._asdict()
    visual.interpolation = source.interpolation()
    visual.names = source.identity()
    labelled: nn.Module = visual
    return labelled


class _Input(NamedTuple):
    """The input size of a tower, None for its own; and whether its positions are resampled."""

    size: int | None
    resampled: bool


def _wanted_input(spec: TeacherSpec, source: Source) -> _Input:
    """Return the input size that gives the wanted token grid, and that its tokens cover wholly.

    A tower whose own input is no multiple of its patch (SO400M/14 at 384 pixels) sees nothing of
    the last rows and columns. It gets as many pixels as its tokens cover, so that the student,
    which is shown the same view, sees what the teacher saw.
    """
    blank = source.outline()
    try:
        tower = tower_of(blank, spec.name)
    except ConfigError:
        if spec.grid is None:  # then who uses the tower says what is wrong with it
            return _Input(None, resampled=False)
        raise
    grid = (spec.grid, spec.grid) if spec.grid is not None else tower.grid
    size = grid[0] * tower.stride
    if grid != tower.grid and isinstance(tower, ResNetTower):
        raise ConfigError(
            f"--grid {spec.grid} does not fit --teacher {spec.name!r}, whose pooling has "
            f"positions for {tower.grid[0]}x{tower.grid[1]} only; leave it out or choose another "
            "teacher"
        )
    if grid == tower.grid and size == tower.image_size:
        return _Input(None, resampled=False)
    if grid == tower.grid:
        _warn_of_margin(spec.name, tower.image_size, tower.grid, tower.stride)
    return _Input(size, resampled=grid != tower.grid)


@functools.cache
def _warn_of_margin(name: str, size: int, grid: tuple[int, int], stride: int) -> None:
    """Warn, once for the same tower."""
    logger.warning(
        "--teacher %r takes %d pixels, no multiple of its patches of %d, and its %dx%d tokens see "
        "%d of them; it is given views of %d pixels, so that the student sees the same",
        name, size, stride, *grid, grid[0] * stride, grid[0] * stride,
    )  # fmt: skip
