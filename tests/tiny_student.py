"""A student that computes in a millisecond, and a batch for it."""

from typing import Any

import torch

from milan_pipeline.models.baseline_decoders import make_decoder
from milan_pipeline.models.student import Student
from milan_pipeline.models.vit import build_encoder

NAME = "vit_base_patch16_224"
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
