"""Tiny models of timm of the families that people distil from, in folders of timm's form."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from tests.support.clip import MEAN, STD, finished

TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2}
LICENCE = "cc-by-nc-4.0"
# family -> (timm's name, arguments beside `TINY`)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("vit_small_patch14_dinov2", {"img_size": 56}),
    "dinov2-registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
    "dinov3": ("vit_small_patch16_dinov3", {"img_size": 64}),
    "dinov3-qkv-bias": ("vit_small_plus_patch16_dinov3_qkvb", {"img_size": 64}),
    "eva": ("eva_giant_patch14_224", {"img_size": 56}),
    "eva02": ("eva02_base_patch14_224", {"img_size": 56}),
    "siglip2": ("vit_base_patch16_siglip_224", {"img_size": 64}),
    "siglip2-gap": ("vit_base_patch16_siglip_gap_224", {"img_size": 64}),
    "pe-core": ("vit_pe_core_tiny_patch16_384", {"img_size": 64}),
    "pe-spatial": ("vit_pe_spatial_tiny_patch16_512", {"img_size": 64}),
    "mae": ("vit_base_patch16_224", {"img_size": 64}),
    "supervised": ("deit3_small_patch16_224", {"img_size": 64}),
    "qk-norm": ("vit_base_patch16_224", {"img_size": 64, "qk_norm": True}),
    "beit": ("beit_base_patch16_224", {"img_size": 64}),
    "dynamic": ("vit_base_patch16_224", {"img_size": 64, "dynamic_img_size": True}),
}
POOLED_BY = {
    "siglip2": "pool", "pe-core": "pool", "siglip2-gap": "average", "eva02": "average",
    "pe-spatial": "average", "beit": "average", "eva": "average",
}  # fmt: skip
"""All others have CLS tokens."""
AVERAGING_ALONE = ("siglip2-gap",)


def tiny_model(family: str) -> Any:
    """Build a family's tiny model, always the same."""
    name, arguments = FAMILIES[family]
    torch.manual_seed(0)
    return finished(timm.create_model(name, num_classes=0, **{**TINY, **arguments}))


def write_timm(folder: Path, family: str, **config: Any) -> str:
    """Write a family's tiny model in timm's form, and return its name as a teacher.

    Args:
        folder: where it is written.
        family: of `FAMILIES`.
        config: replaces parts of the weights' configuration; None takes them out.
    """
    name, arguments = FAMILIES[family]
    model = tiny_model(family)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    size = arguments["img_size"]
    stated = {
        "mean": MEAN, "std": STD, "input_size": [3, size, size], "interpolation": "bicubic",
        "license": LICENCE, "num_classes": 0, **config,
    }  # fmt: skip
    document = {
        "architecture": name,
        "num_classes": 0,
        "model_args": {**TINY, **arguments},
        "pretrained_cfg": {key: value for key, value in stated.items() if value is not None},
    }
    (folder / "config.json").write_text(json.dumps(document))
    return f"timm:local-dir:{folder}"
