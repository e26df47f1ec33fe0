"""The sizes of a student, read off the shapes of its weights under official names.

Legend: E encoder width, C decoder width, D target width, p pixels of a patch.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from milan_pipeline.errors import ConfigError, MismatchError


class DecoderSizes(NamedTuple):
    """What the shapes of a checkpoint tell of its decoder: C, its blocks, and D."""

    width: int
    depth: int
    target_width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialSizes:
    """What the shapes of a checkpoint tell.

    Attributes:
        patch_size: p.
        side: rows, and columns, of patches.
        width: E.
        depth: blocks of the encoder.
        decoder: None for an encoder alone.
    """

    patch_size: int
    side: int
    width: int
    depth: int
    decoder: DecoderSizes | None

    @property
    def image_size(self) -> int:
        """Height and width of a view, in pixels."""
        return self.side * self.patch_size


def sizes_of(state: Mapping[str, Tensor]) -> OfficialSizes:
    """Read the sizes of a student off its weights under official names.

    A state without any `decoder_*` and without `mask_token` is an encoder alone.

    Raises:
        MismatchError: a tensor that tells a size is missing or has another number of dimensions.
        ConfigError: the positions are those of no square grid.
    """
    patches, width = _shape(state, "pos_embed", 3)[1] - 1, _shape(state, "cls_token", 3)[2]
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise ConfigError(
            f"pos_embed holds {patches} patches beside CLS, which is no square grid; import the "
            "checkpoint of a student that sees square images"
        )
    whole = any(name.startswith("decoder_") or name == "mask_token" for name in state)
    return OfficialSizes(
        patch_size=_shape(state, "patch_embed.proj.weight", 4)[3],
        side=side,
        width=width,
        depth=_depth(state, "blocks."),
        decoder=_decoder_sizes(state) if whole else None,
    )


def _decoder_sizes(state: Mapping[str, Tensor]) -> DecoderSizes:
    return DecoderSizes(
        width=_shape(state, "mask_token", 3)[2],
        depth=_depth(state, "decoder_blocks."),
        target_width=_shape(state, "decoder_pred.weight", 2)[0],
    )


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != dimensions:
        found = f"has it in shape {tuple(state[name].shape)}" if name in state else "lacks it"
        raise MismatchError(
            f"the official state needs {name} of {dimensions} dimensions and {found}; give a "
            "checkpoint of MILAN's official code"
        )
    return tuple(state[name].shape)


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the blocks: at least 1, so that where there is none the lack of it is an error."""
    names = (name.removeprefix(prefix) for name in state if name.startswith(prefix))
    return max(1, len({name.partition(".")[0] for name in names}))
