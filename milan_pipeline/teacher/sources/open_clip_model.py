"""A teacher that open_clip builds: its configuration, and its image tower with or without weights.

open_clip raises many kinds of errors; each becomes a `ConfigError` of one sentence.
"""

import contextlib
import logging
import math
from pathlib import Path
from typing import Any

import open_clip
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from torch import nn

from milan_pipeline.core.hub import asking_hub
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import Statistics
from milan_pipeline.images.views import Interpolation
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.teacher.blank import blank_tower
from milan_pipeline.teacher.configuration import explaining, model_config
from milan_pipeline.teacher.published_weights import require_known_tag
from milan_pipeline.teacher.quick_gelu import settle_quick_gelu
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.statistics import settled_statistics
from milan_pipeline.teacher.tower_alone import fill_alone, names_alone
from milan_pipeline.teacher.weights import (
    require_finite,
    require_floats,
    stored_parts,
    stored_visual,
    unloadable,
    weights_file,
)

logger = logging.getLogger(__name__)


class OpenClipModel:
    """A model by open_clip's name, or in a folder or repository of its form.

    Raises:
        ConfigError: open_clip has no such model.
    """

    def __init__(self, spec: TeacherSpec) -> None:
        self._spec = spec
        self._config = model_config(spec.name)

    def statistics(self) -> Statistics:
        """See `statistics.settled_statistics`."""
        return settled_statistics(self._spec)

    def interpolation(self) -> Interpolation:
        """Return bicubic, whatever the configuration states: stores have been written so."""
        return "bicubic"

    def identity(self) -> dict[str, Any]:
        """Return the names of the model and of its weights, without paths."""
        return self._spec.names_in_identity

    def outline(self) -> Any:
        """Build the image tower for shapes alone."""
        return blank_tower(self._spec.name, self._config, quick_gelu=False, size=None)

    def blank(self, size: int | None) -> Any:
        """Build the image tower on torch's meta device."""
        require_known_tag(self._spec)
        return self._built(self._settled_quick_gelu(), size, "meta")

    def untrained(self, size: int | None) -> Any:
        """Build the image tower with random weights."""
        return self._built(bool(self._config.get("quick_gelu", False)), size, "cpu")

    def require_loadable(self) -> None:
        """Refuse what is known not to be loadable, before anything is."""
        if not isinstance(self._config.get("text_cfg"), dict):
            raise ConfigError(
                f"--teacher {self._spec.name!r} has a configuration without text_cfg, which "
                "open_clip needs to load it; copy the configuration again from where the weights "
                "came from"
            )
        require_known_tag(self._spec)
        settled_statistics(self._spec)
        weights_file(self._spec)

    def trained(self, size: int | None) -> Any:
        """Load the image tower."""
        spec, path = self._spec, weights_file(self._spec)
        quick_gelu = self._settled_quick_gelu()
        if path is not None and (names := self._names_alone(path)) is not None:
            visual = blank_tower(
                spec.name, self._config, quick_gelu=quick_gelu, size=size, device="cpu"
            )
            fill_alone(visual, path, names)
            visual = _sized(visual, size)
        else:
            visual = _loaded_by_open_clip(spec, path, quick_gelu, size)
        require_finite(visual, f"--teacher {spec.name!r}" if path is None else str(path))
        if path is not None:
            require_floats(visual, path)
            visual.resampled = _has_other_positions(spec, visual, path)
        return self._labelled(visual, quick_gelu)

    def _settled_quick_gelu(self) -> bool:
        return settle_quick_gelu(self._spec.name, self._spec.pretrained, self._config)

    def _built(self, quick_gelu: bool, size: int | None, device: str) -> Any:
        visual = blank_tower(
            self._spec.name, self._config, quick_gelu=quick_gelu, size=size, device=device
        )
        return self._labelled(_sized(visual, size), quick_gelu)

    def _names_alone(self, path: Path) -> dict[str, str] | None:
        """See `names_alone`; a file that cannot be read is for open_clip, as it then says why."""
        try:
            names = stored_parts(path).keys()
        except (SafetensorError, OSError):
            return None
        return names_alone(path, names, self.outline().state_dict().keys(), self._config)

    def _labelled(self, visual: Any, quick_gelu: bool) -> Any:
        """Set the hash of a tower's configuration as its attribute.

        Weights contain neither an epsilon nor the parameters of an activation. The input size is
        left out, since grid and preprocessing define it. Options at open_clip's defaults are left
        out, too: a configuration may spell out a default, and a new version of open_clip may add
        options.
        """
        defaults = vars(open_clip.CLIPVisionCfg())
        vision = {
            key: value
            for key, value in self._config["vision_cfg"].items()
            if key != "image_size" and (key not in defaults or value != defaults[key])
        }
        visual.architecture = content_hash({"vision_cfg": vision, "quick_gelu": quick_gelu})
        return visual


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


def _sized(visual: Any, size: int | None) -> Any:
    """Have a tower of timm take another input; its positions are resampled, so load them first."""
    if size is not None and isinstance(visual, TimmModel):
        visual.set_input_size(size)
    return visual


def _has_other_positions(spec: TeacherSpec, visual: nn.Module, path: Path) -> bool:
    """Tell whether a file has positions of another size, so that open_clip resamples them."""
    stored = stored_visual(path).get("positional_embedding")
    if stored is None or not isinstance(visual, VisionTransformer):
        return False
    there, here = stored.shape[0], len(visual.positional_embedding)
    if there != here and spec.grid is None:
        logger.warning(
            "%s has positions for %d patches, but the image_size of --teacher %r asks for %d, so "
            "that they are resampled; if that is not meant, correct image_size, or give --grid %d",
            path, there - 1, spec.name, here - 1, math.isqrt(there - 1),
        )  # fmt: skip
    return there != here
