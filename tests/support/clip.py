"""Tiny image towers of every family that open_clip builds, with weights that are not symmetric."""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import timm
import torch
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from torch import nn

TINY_VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": TINY_VISION,
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
}
SHARPENED = ("qkv.weight", "kv.weight", "q_proj.weight", "k_proj.weight", "q.weight")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
NATIVE = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
PLAIN = {"depth": 3, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}
# name -> (timm's name, pool, proj, what is made smaller)
TIMM: dict[str, tuple[str, str, str | None, dict[str, Any]]] = {
    "siglip": ("vit_base_patch16_siglip_224", "map", "none", PLAIN),
    "eva02": ("eva02_base_patch16_clip_224", "token", None, PLAIN),
    "eva": ("eva_giant_patch14_224", "token", None, PLAIN),
    "pe": ("vit_pe_core_tiny_patch16_384", "map", None, PLAIN),
    "mobileclip-b": ("vit_base_mci_224", "token", None, {"depth": 2, "img_size": 64}),
    "gap": ("vit_medium_patch16_gap_256", "", "linear", PLAIN),
    "gap-mlp": ("vit_medium_patch16_gap_256", "", "mlp", PLAIN),
    "cls-avg": ("vit_tiny_patch16_224", "avg", "linear", PLAIN),
    "registers": ("vit_small_patch14_reg4_dinov2", "token", "linear", PLAIN),
    "beit": ("beit_base_patch16_224", "token", "linear", PLAIN),
    "relpos": ("vit_relpos_medium_patch16_cls_224", "", "linear", PLAIN),
    "relpos-shared": ("vit_relpos_small_patch16_rpn_224", "", "linear", PLAIN),
    "vitamin": ("vitamin_small_224", "", "linear", {"depth": 2, "img_size": 64}),
    "convnext": ("convnext_atto", "", "linear", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 32)}),
    "convnext-mlp": ("convnext_atto", "", "mlp", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 32)}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        "",
        "linear",
        {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2), "img_size": 64},
    ),
    "fastvit": (
        "fastvit_mci0",
        "avg",
        None,
        {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 32)},
    ),
    "resnet": ("resnet10t", "", "linear", {}),
}
TOKEN_TRUNKS = [
    "siglip", "eva02", "eva", "pe", "mobileclip-b", "gap", "gap-mlp", "cls-avg", "registers",
    "beit", "relpos", "relpos-shared", "vitamin",
]  # fmt: skip
MAP_TRUNKS = ["convnext", "convnext-mlp", "swin", "fastvit", "resnet"]


def native(**changes: Any) -> Any:
    """Build open_clip's own vision tower: 32 px, patch 8, 24-dimensional targets."""
    torch.manual_seed(0)
    quick_gelu = bool(changes.pop("quick_gelu", False))
    visual = open_clip.CLIP(24, NATIVE | changes, TEXT, quick_gelu=quick_gelu).visual
    return finished(visual)


def timm_tower(family: str, *, image_size: int | None = None) -> Any:
    """Build a `TimmModel` of a family, made small."""
    name, pool, proj, _ = TIMM[family]
    torch.manual_seed(0)
    with smaller(family):
        visual = TimmModel(name, 24, image_size=size_of(family), pool=pool, proj=proj)
    if image_size is not None:
        visual.set_input_size(image_size)
    return finished(visual)


def size_of(family: str) -> int:
    """The input size of a family's tiny tower."""
    return int(TIMM[family][3].get("img_size", 64))


@contextlib.contextmanager
def smaller(family: str) -> Iterator[None]:
    """Have timm build a family's trunk small within this context."""
    create = functools.partial(timm.create_model, **TIMM[family][3])
    with patch.object(timm, "create_model", create):
        yield


def finished(visual: Any) -> Any:
    """Shake norms and biases, and sharpen attention, so that leaving any of them out shows."""
    with torch.no_grad():
        for name, parameter in visual.named_parameters():
            if parameter.ndim < 2 or "latent" in name or "rel_pos" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "attn" in name and name.endswith(SHARPENED):
                parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
    visual.preprocess_cfg = {"mean": MEAN, "std": STD}
    return visual.eval().requires_grad_(requires_grad=False)


def pixels(size: int = 32, batch: int = 3) -> torch.Tensor:
    """Random uint8 pixels."""
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=random)


def normalised(pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """The same with the tiny towers' mean and std."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels_BCHW / 255 - mean) / std


def embedding(visual: nn.Module, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """What the tower itself returns for images."""
    with torch.no_grad():
        result: Any = visual(normalised(pixels_BCHW))
    found: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return found


def folder_of(family: str, folder: Path) -> str:
    """Write a tiny model of a family in `local-dir:` form."""
    if family == "native":
        vision: dict[str, Any] = NATIVE
    else:
        name, pool, proj, _ = TIMM[family]
        vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj}
        vision |= {"image_size": size_of(family)}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    finished(model.visual)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    document = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return f"local-dir:{folder}"


def write_tiny_clip(folder: Path, seed: int = 0, image_size: int = 32) -> Path:
    """Write a randomly initialised open_clip model in `local-dir:` form."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    parts = {"vision_cfg": {**TINY_VISION, "image_size": image_size}}
    model = open_clip.model.CLIP(**(TINY_CLIP | parts))
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": TINY_CLIP | parts,
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
