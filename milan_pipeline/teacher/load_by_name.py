"""A teacher's model by its name: its configuration, and its image tower with or without weights.

Names are those of open_clip.

open_clip raises many kinds of errors; each becomes a `ConfigError` of one sentence.
"""

import contextlib
import functools
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from torch import nn

from milan_pipeline.core.hub import asking_hub
from milan_pipeline.errors import ConfigError
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.teacher.blank import blank_tower
from milan_pipeline.teacher.configuration import explaining, model_config
from milan_pipeline.teacher.quick_gelu import settle_quick_gelu
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.statistics import settled_statistics
from milan_pipeline.teacher.tower_alone import fill_alone, names_alone
from milan_pipeline.teacher.tower_of_model import tower_of
from milan_pipeline.teacher.tower_open_clip import ResNetTower
from milan_pipeline.teacher.weights import (
    require_finite,
    require_floats,
    stored_parts,
    stored_visual,
    unloadable,
    weights_file,
)

logger = logging.getLogger(__name__)


def require_weights(spec: TeacherSpec) -> None:
    """Refuse a teacher whose name alone does not tell which weights are meant.

    Raises:
        ConfigError: `--pretrained` is needed.
    """
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
    config = model_config(spec.name)
    require_weights(spec)
    if not isinstance(config.get("text_cfg"), dict):
        raise ConfigError(
            f"--teacher {spec.name!r} has a configuration without text_cfg, which open_clip needs "
            "to load it; copy the configuration again from where the weights came from"
        )
    _require_known(spec)
    settled_statistics(spec)  # to refuse what is stated before anything is loaded
    path = weights_file(spec)
    quick_gelu = settle_quick_gelu(spec.name, spec.pretrained, config)
    wanted = _wanted_input(spec, config)
    if path is not None and (names := _names_alone(spec, config, path)) is not None:
        visual = blank_tower(
            spec.name, config, quick_gelu=quick_gelu, size=wanted.size, device="cpu"
        )
        fill_alone(visual, path, names)
        visual = _sized(visual, wanted.size)
    else:
        visual = _loaded_by_open_clip(spec, path, quick_gelu, wanted.size)
    require_finite(visual, f"--teacher {spec.name!r}" if path is None else str(path))
    if path is not None:
        require_floats(visual, path)
        _warn_of_positions(spec, visual, path)
    visual.resampled = wanted.resampled
    return _labelled(visual, spec, config, quick_gelu)


def _names_alone(spec: TeacherSpec, config: dict[str, Any], path: Path) -> dict[str, str] | None:
    """See `names_alone`; a file that cannot be read is for open_clip, too, as it then says why."""
    try:
        names = stored_parts(path).keys()
    except (SafetensorError, OSError):
        return None
    blank = blank_tower(spec.name, config, quick_gelu=False, size=None)
    return names_alone(path, names, blank.state_dict().keys(), config)


def _loaded_by_open_clip(
    spec: TeacherSpec, path: Path | None, quick_gelu: bool, size: int | None
) -> Any:
    """Load the image tower together with the text, which open_clip checks, too.

    Raises:
        ConfigError: it cannot be loaded.
    """
    failure = f"--teacher {spec.name!r} with --pretrained {spec.pretrained!r} cannot be loaded"
    remedy = (
        "check the name, the tag and the network, or give weights that are here: --pretrained "
        "FILE, or --teacher local-dir:FOLDER (see docs/without-network.md)"
    )
    try:
        asking = contextlib.nullcontext() if path else asking_hub(spec.name)
        with explaining(failure, remedy), asking:
            model = open_clip.create_model(
                spec.name,
                pretrained=spec.pretrained,
                require_pretrained=True,
                pretrained_text=False,
                force_quick_gelu=quick_gelu,
                force_image_size=size,
            )
    except ConfigError as error:
        cause = error.__cause__
        told = unloadable(path, cause) if path and isinstance(cause, Exception) else None
        raise told or error from cause
    return model.visual


def untrained_visual(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of a model with random weights, always the same ones.

    Raises:
        ConfigError: open_clip has no such model, or cannot build it.
    """
    config = model_config(spec.name)
    size = _wanted_input(spec, config).size
    quick_gelu = bool(config.get("quick_gelu", False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = blank_tower(spec.name, config, quick_gelu=quick_gelu, size=size, device="cpu")
        visual = _sized(visual, size)
    return _labelled(visual, spec, config, quick_gelu)


def blank_visual(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of a model on torch's meta device, which has shapes but no values.

    Raises:
        ConfigError: open_clip has no such model, or cannot build it.
    """
    config = model_config(spec.name)
    _require_known(spec)
    quick_gelu = settle_quick_gelu(spec.name, spec.pretrained, config)
    size = _wanted_input(spec, config).size
    visual = _sized(blank_tower(spec.name, config, quick_gelu=quick_gelu, size=size), size)
    return _labelled(visual, spec, config, quick_gelu)


def _require_known(spec: TeacherSpec) -> None:
    """Refuse a tag that a published architecture does not have.

    Raises:
        ConfigError: it has others, and this is no path either.
    """
    tags = [] if ":" in spec.name else open_clip.list_pretrained_tags_by_model(spec.name)
    given = spec.pretrained
    if given is None or not tags or get_pretrained_cfg(spec.name, given):
        return
    path = Path(given)
    if not (path.is_file() or path.suffix or len(path.parts) > 1):
        raise ConfigError(
            f"--pretrained {given!r} is neither a file nor a tag of --teacher {spec.name!r}; "
            f"choose {' or '.join(tags)}, or give the path of a file"
        )


def is_resampled(visual: nn.Module) -> bool:
    """Tell whether the position embeddings of a loaded tower were resampled."""
    return bool(getattr(visual, "resampled", False))


def architecture_of(visual: nn.Module) -> str | None:
    """Return the hash of the configuration that a tower was built from; None without one."""
    return getattr(visual, "architecture", None)


def _labelled(
    visual: Any, spec: TeacherSpec, config: dict[str, Any], quick_gelu: bool
) -> nn.Module:
    """Set mean and std of a tower's pixels, and the hash of its configuration, as its attributes.

    Weights contain neither an epsilon nor the parameters of an activation. The input size is left
    out, since grid and preprocessing define it. Options at open_clip's defaults are left out, too:
    a configuration may spell out a default, and a new version of open_clip may add options.
    """
    defaults = vars(open_clip.CLIPVisionCfg())
    vision = {
        key: value
        for key, value in config["vision_cfg"].items()
        if key != "image_size" and (key not in defaults or value != defaults[key])
    }
    visual.architecture = content_hash({"vision_cfg": vision, "quick_gelu": quick_gelu})
    visual.preprocess_cfg = settled_statistics(spec)._asdict()
    labelled: nn.Module = visual
    return labelled


def _sized(visual: Any, size: int | None) -> Any:
    """Have a tower of timm take another input; its positions are resampled, so load them first."""
    if size is not None and isinstance(visual, TimmModel):
        visual.set_input_size(size)
    return visual


class _Input(NamedTuple):
    """The input size of a tower, None for its own; and whether its positions are resampled."""

    size: int | None
    resampled: bool


def _wanted_input(spec: TeacherSpec, config: dict[str, Any]) -> _Input:
    """Return the input size that gives the wanted token grid, and that its tokens cover wholly.

    A tower whose own input is no multiple of its patch (SO400M/14 at 384 pixels) sees nothing of
    the last rows and columns. It gets as many pixels as its tokens cover, so that the student,
    which is shown the same view, sees what the teacher saw.
    """
    blank = blank_tower(spec.name, config, quick_gelu=False, size=None)
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


def _warn_of_positions(spec: TeacherSpec, visual: nn.Module, path: Path) -> None:
    """Warn where open_clip resamples positions that do not fit the configuration's image size."""
    stored = stored_visual(path).get("positional_embedding")
    if stored is None or spec.grid is not None or not isinstance(visual, VisionTransformer):
        return
    there, here = stored.shape[0], len(visual.positional_embedding)
    if there != here:
        logger.warning(
            "%s has positions for %d patches, but the image_size of --teacher %r asks for %d, so "
            "that they are resampled; if that is not meant, correct image_size, or give --grid %d",
            path, there - 1, spec.name, here - 1, math.isqrt(there - 1),
        )  # fmt: skip
