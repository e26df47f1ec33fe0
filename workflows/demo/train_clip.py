"""Train the demo's small CLIP: python -m workflows.demo.train_clip --cache FOLDER.

It is trained on images and captions; labels are used only for the checks that are printed. The
schedule depends on the time, so that a run takes --minutes on any machine. With --photos, images
are photographs in class folders, and captions are made of the classes' names.

Where time is short, `--init` starts from the image tower of another model, and `--patch-dropout`
shows a part of the patches until the last part of the time, as FLIP does (arXiv 2212.00794).
"""

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from open_clip.transformer import PatchDropout
from torch.nn.attention import SDPBackend, sdpa_kernel

from milan_pipeline.core.devices import has_bfloat16, keep_freed_memory
from workflows.demo.captions import vocabulary
from workflows.demo.evaluate_clip import quick_check
from workflows.demo.model import (
    CONTEXT,
    FOLDER,
    new_model,
    normalise,
    save_model,
    take_image_tower,
)
from workflows.demo.photos import CAPTION_CONTEXT, class_names, photo_pools, vocabulary_of
from workflows.demo.pool import Pool, cached, random_views
from workflows.demo.shapes import CLASSES
from workflows.demo.tokenizer import WordTokenizer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the model is trained."""

    minutes: float
    scenes: int
    seed: int = 1  # the demo's own scenes have seed 0
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    smallest_crop: float = 0.35  # of the area of a scene
    check_minutes: float = 3.0
    patch_dropout: float = 0.0
    unmasked_from: float = 0.85  # of the time; all patches are shown from then on


def optimiser(model: CLIP, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays weight matrices only."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim >= 2 and "embedding" not in name
        (matrices if decayed else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches of scene numbers; every epoch takes each scene at most once."""
    size = min(size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield np.sort(order[start : start + size])


def warmed_cosine(warmed: float, progress: float) -> float:
    """Share of the highest rate: it rises until `warmed` is 1, and falls by progress in 0..1."""
    return min(1.0, warmed) * (1 + math.cos(math.pi * progress)) / 2


def precision() -> contextlib.AbstractContextManager[Any]:
    """Compute in bfloat16 where the CPU has instructions for it; elsewhere it is slower."""
    enabled = has_bfloat16(torch.device("cpu"))
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def step(
    model: CLIP, optimizer: torch.optim.Optimizer, images: torch.Tensor, tokens: torch.Tensor
) -> float:
    """One update; returns the contrastive loss."""
    # The plain attention kernel is a third faster than the fused one for 65 tokens on a CPU.
    with sdpa_kernel(SDPBackend.MATH):
        with precision():
            image_features, text_features, scale = model(images, tokens)
        loss = ClipLoss()(image_features.float(), text_features.float(), scale)
        optimizer.zero_grad()
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))
    return float(loss.detach())


def train(
    recipe: Recipe,
    model: CLIP,
    pool: Pool,
    check: Pool,
    out: Path,
    *,
    words: Sequence[str],
    classes: Sequence[str],
    dtype: torch.dtype,
) -> dict[str, float]:
    """Train and save; the folder always holds the latest checked state.

    Args:
        recipe: how.
        model: to train.
        pool: images and captions to learn from.
        check: images to look at on the way.
        out: folder of the model.
        words: that captions are made of.
        classes: names of the class numbers.
        dtype: of the weights that are saved.
    """
    rng = np.random.default_rng(recipe.seed)
    tokenizer = WordTokenizer(words, model.context_length)
    tokens = tokenizer(pool.captions)
    model.visual.patch_dropout = dropout = PatchDropout(recipe.patch_dropout)
    optimizer = optimiser(model, recipe)
    start, checked, progress, losses = time.monotonic(), 0.0, 0.0, []
    for number, chosen in enumerate(batches(len(tokens), recipe.batch, rng), 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * warmed_cosine(number / recipe.warmup_steps, progress)
        dropout.prob = recipe.patch_dropout if progress < recipe.unmasked_from else 0.0
        views = random_views(pool.pixels[chosen], recipe.smallest_crop, rng)
        losses.append(step(model.train(), optimizer, normalise(views), tokens[chosen]))
        minutes = (time.monotonic() - start) / 60
        progress = min(1.0, minutes / recipe.minutes)
        if progress == 1 or minutes - checked >= recipe.check_minutes:
            checked = minutes
            save_model(model.eval(), out, words, dtype)
            found = quick_check(model, tokenizer, check, classes)
            print(
                f"{minutes:.1f} min, {number * recipe.batch} images, "
                f"loss {np.mean(losses[-100:]):.3f}, {found}", flush=True
            )  # fmt: skip
        if progress == 1:
            return {"minutes": round(minutes, 1), "steps": number, "images": number * recipe.batch}
    raise AssertionError("batches() is endless")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the demo's small CLIP.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the trained model")
    parser.add_argument("--cache", type=Path, required=True, help="folder to keep scenes in")
    parser.add_argument("--minutes", type=float, default=38)
    parser.add_argument("--scenes", type=int, default=48000, help="scenes to train on")
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--photos", type=Path, help="train on these class folders, captioned by their names"
    )
    parser.add_argument("--init", type=Path, help="start from the image tower of this model")
    parser.add_argument(
        "--patch-dropout", type=float, default=0.0, help="share of the patches to leave out"
    )
    parser.add_argument(
        "--check-minutes", type=float, default=3.0, help="between checks, which save the model"
    )
    parser.add_argument("--float16", action="store_true", help="save the weights in float16")
    options = parser.parse_args(arguments)
    recipe = Recipe(
        minutes=options.minutes,
        scenes=options.scenes,
        batch=options.batch,
        patch_dropout=options.patch_dropout,
        check_minutes=options.check_minutes,
    )
    words, classes, context = vocabulary(), list(CLASSES), CONTEXT
    if options.photos is None:
        pool = cached(options.cache, recipe.seed, "train", recipe.scenes, options.workers)
        check = cached(options.cache, recipe.seed, "test", 1200, options.workers)
    else:
        classes, context = class_names(options.photos), CAPTION_CONTEXT
        words = vocabulary_of(classes)
        pool, check = photo_pools(options.photos, options.cache, recipe.seed)
    torch.manual_seed(recipe.seed)
    model = new_model(words, context)
    if options.init is not None:
        take_image_tower(model, options.init)
    dtype = torch.float16 if options.float16 else torch.float32
    spent = train(
        recipe, model, pool, check, options.out, words=words, classes=classes, dtype=dtype
    )
    record = {"recipe": vars(recipe) | {"init": options.init is not None}, "spent": spent}
    (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    keep_freed_memory()
    main()
