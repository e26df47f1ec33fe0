"""An architecture of timm as a teacher: built with or without values, and filled with weights."""

import logging
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.teacher.blank import Unfilled
from milan_pipeline.teacher.configuration import explaining
from milan_pipeline.teacher.timm_visual import TimmVisual

BESIDE = re.compile(r"(head|head_dist|fc|mask_token|decoder_\w+)(\.|$)")
"""Names of weights that a teacher is not asked for: of classifiers, and of MAE's decoder."""
FETCHING = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments that would have timm read other files than those that were named."""

logger = logging.getLogger(__name__)


class TimmModel:
    """An architecture of timm: it can be built, and filled from a state dict.

    Args:
        name: of the teacher, for errors.
        model: its name in timm, which may have a tag.
        arguments: others of `timm.create_model`.
        config: timm's configuration of weights that are not among its own.
    """

    def __init__(
        self,
        name: str,
        model: str,
        arguments: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.model = name, model
        self._arguments = {k: v for k, v in arguments.items() if k not in FETCHING}
        self._config_of_weights = {} if config is None else {"pretrained_cfg": dict(config)}

    def outline(self) -> TimmVisual:
        """Build it for shapes alone."""
        return self.blank(None)

    def blank(self, size: int | None) -> TimmVisual:
        """Build it on torch's meta device."""
        with Unfilled():
            return self._built(size, "meta")

    def untrained(self, size: int | None) -> TimmVisual:
        """Build it with random weights."""
        return self._built(size, "cpu")

    def filled(self, state: Mapping[str, Tensor], where: str, size: int | None) -> TimmVisual:
        """Build it with weights.

        Args:
            state: under timm's names, or others that timm knows to translate.
            where: they come from, for errors.
            size: of the input.

        Raises:
            ConfigError: they are not those of this architecture.
        """
        visual = self.untrained(None)
        translate = getattr(
            sys.modules[type(visual.trunk).__module__], "checkpoint_filter_fn", None
        )
        failure = f"{where} does not fit --teacher {self.name!r}"
        with explaining(failure, "give the name of the model that these weights are of"):
            translated = dict(state) if translate is None else translate(dict(state), visual.trunk)
            known = {
                name: tensor
                for name, tensor in translated.items()
                if not BESIDE.match(name) or name in visual.trunk.state_dict()
            }
            visual.trunk.load_state_dict(known, strict=True)
        visual.resampled = _has_other_positions(state.get("pos_embed"), visual.trunk, where)
        return self._finished(visual, size)

    def _built(self, size: int | None, device: str) -> TimmVisual:
        failure = f"--teacher {self.name!r} cannot be built by timm"
        with explaining(failure, "choose another model"), torch.device(device):
            return self._finished(self.created(self.model, pretrained=False), size)

    def created(self, model: str, *, pretrained: bool) -> TimmVisual:
        """Have timm create the model, by this name."""
        stated = self._config_of_weights if model == self.model else {}
        given = self._arguments | stated | {"pretrained": pretrained, "num_classes": 0}
        return TimmVisual(timm.create_model(model, **given))

    def _finished(self, visual: TimmVisual, size: int | None) -> TimmVisual:
        """Set the size, and the hash of what is built; the size is in the identity itself."""
        if size is not None:
            visual.set_input_size(size)
        built = {key: value for key, value in self._arguments.items() if key != "img_size"}
        content = {"timm": self.model.partition(".")[0], "arguments": built}
        visual.architecture = content_hash(content)
        return visual.eval()


def _has_other_positions(stored_1NW: Tensor | None, trunk: Any, where: str) -> bool:
    """Tell whether positions are of another size than the model, so that timm resamples them."""
    own_1NW = getattr(trunk, "pos_embed", None)
    if stored_1NW is None or own_1NW is None or stored_1NW.ndim != 3:
        return False
    there, here = (math.isqrt(positions.shape[1]) for positions in (stored_1NW, own_1NW))
    if there != here:
        logger.warning(
            "%s has positions for %dx%d patches, but its model is of %dx%d, so that they are "
            "resampled; if that is not meant, name the model that the weights are of",
            where, there, there, here, here,
        )  # fmt: skip
    return there != here
