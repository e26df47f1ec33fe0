"""A teacher's model by its name: its configuration, and its image tower with or without weights.

Names are those of open_clip.

open_clip raises many kinds of errors; each becomes a `ConfigError` of one sentence.
"""

import logging
from pathlib import Path
from typing import Any, TypedDict

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.timm_model import TimmModel
from torch import nn

from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.errors import ConfigError
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.teacher.quick_gelu import settle_quick_gelu
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.tower_of_model import tower_of
from milan_pipeline.teacher.tower_open_clip import ResNetTower

# A tiny text tower, since only the image tower is used.
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
CANNOT_BUILD = (
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_visual(spec: TeacherSpec) -> nn.Module:
    """Load the image tower of a model, in fp32, on the CPU.

    Position embeddings are resampled for `spec.grid` as open_clip and timm do it for another image
    size. The tower's `preprocess_cfg` has the mean and std that it was trained with, and
    `architecture_of` returns the hash of its configuration.

    Raises:
        ConfigError: the model or its weights cannot be loaded, or are known not to fit each other.
    """
    config = model_config(spec.name)
    if spec.pretrained is None and ":" not in spec.name:
        raise ConfigError(
            f"--teacher {spec.name!r} comes with weights of several kinds; give --pretrained, for "
            "example openai"
        )
    quick_gelu = settle_quick_gelu(spec.name, spec.pretrained, config)
    size = _wanted_size(spec, config)
    try:
        model = open_clip.create_model(
            spec.name,
            pretrained=spec.pretrained,
            require_pretrained=True,
            pretrained_text=False,
            force_quick_gelu=quick_gelu,
            force_image_size=size,
        )
    except CANNOT_BUILD as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--teacher {spec.name!r} with --pretrained {spec.pretrained!r} cannot be loaded "
            f"({reason}); check the name, the tag and the network, or give weights that are "
            "here: --pretrained FILE, or --teacher local-dir:FOLDER"
        ) from error
    model.visual.resampled = size is not None
    return _labelled(model.visual, config, quick_gelu)


def untrained_visual(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of a model with random weights, always the same ones.

    Raises:
        ConfigError: open_clip has no such model, or cannot build it.
    """
    config = model_config(spec.name)
    logging.disable(logging.WARNING)  # open_clip warns that the model is untrained
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.create_model(
                spec.name,
                load_weights=False,
                pretrained_text=False,
                force_image_size=_wanted_size(spec, config),
            )
    except CANNOT_BUILD as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--teacher {spec.name!r} cannot be built ({reason}); check the name"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return _labelled(model.visual, config, bool(config.get("quick_gelu", False)))


def blank_visual(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of a model on torch's meta device, which has shapes but no values.

    Raises:
        ConfigError: open_clip has no such model, or cannot build it.
    """
    config = model_config(spec.name)
    quick_gelu = settle_quick_gelu(spec.name, spec.pretrained, config)
    size = _wanted_size(spec, config)
    visual = _blank(spec.name, config, quick_gelu, size)
    if size is not None and isinstance(visual, TimmModel):
        visual.set_input_size(size)
    return _labelled(visual, config, quick_gelu)


def is_resampled(visual: nn.Module) -> bool:
    """Tell whether the position embeddings of a loaded tower were resampled."""
    return bool(getattr(visual, "resampled", False))


def architecture_of(visual: nn.Module) -> str | None:
    """Return the hash of the configuration that a tower was built from; None without one."""
    return getattr(visual, "architecture", None)


def model_config(name: str) -> dict[str, Any]:
    """Read a model's configuration.

    Raises:
        ConfigError: there is no such model, or its configuration is not that of a CLIP.
    """
    try:
        config: dict[str, Any] | None = open_clip.get_model_config(name)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--teacher {name!r} has no readable configuration ({reason}); check the name"
        ) from error
    if config is None:
        raise ConfigError(
            f"--teacher {name!r} is no open_clip model; see open_clip.list_models(), or give "
            "hf-hub:ORG/REPO or local-dir:PATH"
        )
    if not isinstance(config.get("vision_cfg"), dict) or "embed_dim" not in config:
        raise ConfigError(
            f"--teacher {name!r} has a configuration without vision_cfg and embed_dim; give the "
            "folder or repository of a CLIP"
        )
    return config


class _Statistics(TypedDict, total=False):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def known_statistics(spec: TeacherSpec) -> dict[str, list[float]]:
    """Return the mean and std of a model's weights, as far as they are known without the weights.

    Raises:
        ConfigError: the configuration in a local folder has another form.
    """
    known: dict[str, Any] = {}
    if spec.name.startswith("local-dir:"):
        path = Path(spec.name.removeprefix("local-dir:")) / "open_clip_config.json"
        try:
            document = parsed(path.read_bytes(), dict[str, Any])
            known = document.get("preprocess_cfg", {})
            conforming(known, _Statistics)
        except DocumentError as error:
            raise ConfigError(
                f"--teacher {spec.name!r} has a configuration with no mean and std as they must be "
                f"({error}); fix {path}"
            ) from error
    elif ":" not in spec.name and spec.pretrained:
        known = get_pretrained_cfg(spec.name, spec.pretrained)
    return {key: [float(value) for value in known[key]] for key in ("mean", "std") if key in known}


def _labelled(visual: Any, config: dict[str, Any], quick_gelu: bool) -> nn.Module:
    """Set the hash of a tower's configuration as its attribute, as open_clip sets `preprocess_cfg`.

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
    labelled: nn.Module = visual
    return labelled


def _blank(name: str, config: dict[str, Any], quick_gelu: bool, size: int | None) -> nn.Module:
    vision = config["vision_cfg"]
    if size is not None:
        vision = vision | {"image_size": size}
    try:
        with torch.device("meta"):
            model = open_clip.CLIP(
                config["embed_dim"], vision, NO_TEXT, quick_gelu=quick_gelu
            ).eval()
    except CANNOT_BUILD as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--teacher {name!r} has a configuration that open_clip cannot build ({reason}); "
            "check its vision_cfg"
        ) from error
    visual: nn.Module = model.visual
    return visual


def _wanted_size(spec: TeacherSpec, config: dict[str, Any]) -> int | None:
    """Return the input size that gives the wanted token grid; None for the tower's own."""
    if spec.grid is None:
        return None
    tower = tower_of(_blank(spec.name, config, quick_gelu=False, size=None), spec.name)
    if tower.grid == (spec.grid, spec.grid):
        return None
    if isinstance(tower, ResNetTower):
        raise ConfigError(
            f"--grid {spec.grid} does not fit --teacher {spec.name!r}, whose pool has positions "
            f"for {tower.grid[0]}x{tower.grid[1]} only; leave it away or choose another teacher"
        )
    return spec.grid * tower.stride
