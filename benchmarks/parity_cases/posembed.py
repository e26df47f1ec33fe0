"""Positions for another grid: those of an encoder that is loaded for another image size.

Legend: P tokens that are no patches, L patches, E width.
"""

from collections.abc import Iterator
from typing import Any

import timm
from torch import Tensor

from benchmarks.parity_cases.case import Case, Deviation, largest
from milan_pipeline.encoders.backbone import EncoderParts, assemble, backbone_arguments
from milan_pipeline.models.positions import positions_for

PATCH = 2
GREY = [0.5] * 3


def compare(case: Case) -> Iterator[Deviation]:
    """Yield two deviations for each table: loaded for another size, and used by a segmenter."""
    side, prefix = case.settings["grid"], case.settings["prefix_tokens"]
    allowed = case.tolerance("out")
    for name, official in case.out.items():
        kind, _, grid = name.rpartition("_")
        table = case.io[kind]
        arguments = backbone_arguments(
            {
                "model_name": "vit_base_patch16_224",
                "img_size": side * PATCH,
                "patch_size": PATCH,
                "embed_dim": table.shape[-1],
                "depth": 1,
                "num_heads": 1,
                "class_token": prefix > 0,
                "reg_tokens": max(0, prefix - 1),
            }
        )
        yield largest(f"{name}, loaded", official, _loaded(arguments, table, int(grid)), allowed)
        yield largest(f"{name}, seen", official, _seen(arguments, table, int(grid)), allowed)


def _loaded(arguments: dict[str, Any], table_1NE: Tensor, grid: int) -> Tensor:
    """Return the positions of an encoder that is loaded for images of another size."""
    state = timm.create_model(**arguments).state_dict() | {"pos_embed": table_1NE}
    parts = EncoderParts(dict(arguments), state, GREY, GREY)
    vit: Any = assemble(parts, origin="the case", image_size=grid * PATCH)[0]
    found: Tensor = vit.pos_embed.detach()
    return found


def _seen(arguments: dict[str, Any], table_1NE: Tensor, grid: int) -> Tensor:
    """Return the positions that a ViT of any image size adds to that many patches."""
    vit: Any = timm.create_model(**arguments, dynamic_img_size=True)
    vit.load_state_dict({"pos_embed": table_1NE}, strict=False)
    with positions_for(vit, (grid, grid)):
        found: Tensor = vit.pos_embed.detach()
    return found
