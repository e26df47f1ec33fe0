"""A student that computes in a millisecond, and a batch for it.

A small student's weights under official names, as the official code recorded them.
"""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from milan_pipeline.models.baseline_decoders import make_decoder
from milan_pipeline.models.build import StudentSpec
from milan_pipeline.models.student import Student
from milan_pipeline.models.vit import build_encoder, encoder_arguments
from milan_pipeline.models.weight_files import export_encoder
from tests.support.cli import run_cli

TINY_SPEC = StudentSpec(
    name="vit_tiny_patch16_224",
    patch_size=8,
    width=16,
    depth=1,
    heads=2,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
)
GREY = [0.5, 0.5, 0.5]
ENCODER_SIZES = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2}
NAME = "vit_base_patch16_224"
NEWEST = "vit_base_patch16_radio_v3"
"""Of the models that tests name, the one that only new releases of timm have."""
GRID = (4, 6)
SIZES: dict[str, Any] = {
    "image_size": (16, 24),
    "patch_size": 4,
    "width": 24,
    "depth": 2,
    "heads": 2,
}
TARGET_WIDTH = 12


def tiny_student(decoder="prompting", supervise="all", *, name=NAME, grid=GRID, seed=0, **sizes):
    """Build a student of 4 x 6 patches with random weights, biases included."""
    if name == NEWEST and not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(seed)
    sizes = SIZES | {"image_size": (4 * grid[0], 4 * grid[1])} | sizes
    encoder = build_encoder(name, **sizes)
    made = make_decoder(decoder, sizes["width"], grid, TARGET_WIDTH, width=8, depth=2, heads=2)
    return perturbed(Student(encoder, made, supervise))


def perturbed(model):
    """Move every trained weight: zero biases would hide what they do."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def tiny_batch(kept=6, grid=GRID, batch=2, seed=1):
    """Return images and the kept and masked patches, ascending."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, 4 * grid[0], 4 * grid[1], generator=generator)
    order = torch.rand(batch, grid[0] * grid[1], generator=generator).argsort(dim=1)
    kept_BK, masked_BM = (part.sort(dim=1).values for part in (order[:, :kept], order[:, kept:]))
    return images, kept_BK, masked_BM


def take(patches_BLP, kept_BK):
    """Gather patches sample by sample."""
    return patches_BLP[torch.arange(len(kept_BK))[:, None], kept_BK]


def gradients(model):
    """Return the gradient of every parameter that has one."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


CASE = Path(__file__).parents[1] / "fixtures" / "parity" / "tiny.safetensors"
HEADS = ("--heads", 4, "--decoder-heads", 4)


def official_weights() -> dict[str, Tensor]:
    """64 px in patches of 16, width 48, 3 blocks; decoder 32 wide, 2 blocks."""
    found = load_file(CASE)
    return {k.removeprefix("state/"): v for k, v in found.items() if k.startswith("state/")}


def encoder_only(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those of the decoder."""
    return {k: v for k, v in weights.items() if "decoder" not in k and k != "mask_token"}


def import_checkpoint(checkpoint: Path, out: Path, *more: object, code: int = 0) -> Path:
    """Run the stage; return the run folder."""
    run_cli("import-checkpoint", checkpoint, "--out", out, *(more or HEADS), code=code)
    return out


def write_encoder(folder: Path) -> None:
    """Export a tiny encoder."""
    name = "vit_tiny_patch16_224"
    encoder, arguments = (
        build_encoder(name, **ENCODER_SIZES),
        encoder_arguments(name, **ENCODER_SIZES),
    )
    export_encoder(folder, encoder, arguments, mean=GREY, std=GREY)


def merged(state):
    """The inverse, written apart: `ViTModel`'s names to timm's."""
    found = {}
    for name, tensor in state.items():
        renamed = name.removeprefix("embeddings.")
        for theirs, ours in (
            ("position_embeddings", "pos_embed"),
            ("patch_embeddings.projection", "patch_embed.proj"),
            ("encoder.layer.", "blocks."),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("layernorm", "norm"),
            ("attention.output.dense", "attn.proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
            ("attention.attention.query", "attn.qkv"),
        ):
            renamed = renamed.replace(theirs, ours)
        if "attention.query" in name:
            parts = [name.replace("query", part) for part in ("query", "key", "value")]
            found[renamed] = torch.cat([state[part] for part in parts])
        elif "attention.key" not in name and "attention.value" not in name:
            found[renamed] = tensor
    return found
