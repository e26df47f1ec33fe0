"""Train a second teacher, on masks: python -m workflows.demo.train_segmenter SCENES --out FOLDER.

SCENES is a folder that workflows.demo.scenes wrote. The model is a small ViT. Its patches learn the
class of each of their pixels, and its CLS token the shares of the classes in the view. No caption
is read, and no label of a scene. The encoder is written as a run has it, in float16, so that
`--teacher run:FOLDER` and `--encoder FOLDER` take it. The schedule depends on the CPU time, so that
a run may be slowed down or halted.

Legend: B batch, S height and width of a view, N = 1 + L tokens, L patches, P side of a patch,
E width, Y classes with the background.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.models import VisionTransformer
from torch import nn
from torch.nn import functional as F

from milan_pipeline.models.vit import build_encoder, encoder_arguments
from milan_pipeline.models.weight_files import put_weights
from workflows.demo.model import MEAN, STD, normalise
from workflows.demo.pool import VIEW, crop_of, random_crop, whole_views
from workflows.demo.shapes import CLASSES
from workflows.demo.train_clip import batches, warmed_cosine

NAME = "vit_tiny_patch16_224"
SIZES = {"image_size": VIEW, "patch_size": 8, "width": 128, "depth": 4, "heads": 4}
LABELS = 1 + len(CLASSES)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the model is trained."""

    minutes: float  # of CPU time
    seed: int = 0
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    smallest_crop: float = 0.35  # of the area of a scene
    check_minutes: float = 1.0


class Scenes(NamedTuple):
    """Pixels (n, 3, S, S) and masks (n, S, S) of scenes, uint8."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def read_scenes(folder: Path, split: str) -> Scenes:
    """Read the images and masks of a split."""
    files = sorted((folder / split).rglob("*.jpg"))
    masks = [folder / "masks" / file.relative_to(folder).with_suffix(".png") for file in files]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    return Scenes(
        pixels.transpose(0, 3, 1, 2), np.stack([np.asarray(Image.open(file)) for file in masks])
    )


class Segmenter(nn.Module):
    """An encoder, with a linear head for its patches and one for its CLS token."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder: VisionTransformer = build_encoder(NAME, **SIZES)
        self.patch = SIZES["patch_size"]
        self.of_pixels = nn.Linear(SIZES["width"], LABELS * self.patch**2)
        self.of_view = nn.Linear(SIZES["width"], LABELS)

    def forward(self, views_B3SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of each pixel (B, Y, S, S), and those of the view (B, Y)."""
        tokens_BNE = self.encoder.forward_features(normalise(views_B3SS))
        pixels_BLX = self.of_pixels(tokens_BNE[:, 1:])
        grid = VIEW // self.patch
        pixels_BXGG = pixels_BLX.transpose(1, 2).unflatten(2, (grid, grid))
        return F.pixel_shuffle(pixels_BXGG, self.patch), self.of_view(tokens_BNE[:, 0])


def loss_of(model: Segmenter, views_B3SS: torch.Tensor, masks_BSS: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the pixels and of the classes' shares, of equal weights."""
    pixels_BYSS, view_BY = model(views_B3SS)
    shares_BY = F.one_hot(masks_BSS, LABELS).float().mean(dim=(1, 2))
    return F.cross_entropy(pixels_BYSS, masks_BSS) + F.cross_entropy(view_BY, shares_BY)


def random_views(
    scenes: Scenes, chosen: NDArray[np.int64], smallest: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random crops as the CLIP's training has them, uint8, and their masks, int64."""
    views, masks = [], []
    for number in chosen:
        crop = random_crop(smallest, rng)
        views.append(crop_of(scenes.pixels[number], crop))
        masks.append(crop_of(scenes.masks[number][None], crop, nearest=True)[0])
    return torch.stack(views), torch.stack(masks).long()


@torch.no_grad()
def check(model: Segmenter, scenes: Scenes) -> dict[str, float]:
    """Return the share of pixels that are right, and the mIoU, on whole scenes, in per cent."""
    found, truth = [], []
    for start in range(0, len(scenes.pixels), 250):
        part = slice(start, start + 250)
        found.append(model(whole_views(scenes.pixels[part]))[0].argmax(dim=1))
        masks = torch.from_numpy(scenes.masks[part])[:, None].float()
        truth.append(F.interpolate(masks, (VIEW, VIEW), mode="nearest-exact")[:, 0].long())
    answers, labels = torch.cat(found).flatten(), torch.cat(truth).flatten()
    counts_YY = torch.bincount(labels * LABELS + answers, minlength=LABELS**2).view(LABELS, LABELS)
    right_Y = counts_YY.diagonal()
    ious_Y = right_Y / (counts_YY.sum(0) + counts_YY.sum(1) - right_Y)
    return {
        "pixels": round(100 * float(right_Y.sum() / counts_YY.sum()), 2),
        "miou": round(100 * float(ious_Y.mean()), 2),
    }


def save(model: Segmenter, folder: Path) -> None:
    """Write the encoder, in float16, with its description."""
    description = {"timm": encoder_arguments(NAME, **SIZES), "mean": MEAN, "std": STD}
    state = {name: tensor.half() for name, tensor in model.encoder.state_dict().items()}
    put_weights(folder, "encoder", state, description)


def train(recipe: Recipe, scenes: Scenes, held_out: Scenes, out: Path) -> dict[str, float]:
    """Train and save; the folder always holds the latest checked state."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = Segmenter()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    start, checked, progress, losses = time.process_time(), 0.0, 0.0, []
    for number, chosen in enumerate(batches(len(scenes.pixels), recipe.batch, rng), 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * warmed_cosine(number / recipe.warmup_steps, progress)
        views, masks = random_views(scenes, chosen, recipe.smallest_crop, rng)
        loss = loss_of(model.train(), views, masks)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        minutes = (time.process_time() - start) / 60
        progress = min(1.0, minutes / recipe.minutes) if recipe.minutes else 1.0
        if progress == 1 or minutes - checked >= recipe.check_minutes:
            checked = minutes
            save(model.eval(), out)
            found = check(model, held_out)
            seen = number * recipe.batch
            mean = np.mean(losses[-100:])
            print(f"{minutes:.1f} min, {seen} views, loss {mean:.3f}, {found}", flush=True)
        if progress == 1:
            return {"minutes": round(minutes, 1), "steps": number, "views": seen, **found}
    raise AssertionError("batches() is endless")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the demo's second teacher, on masks.")
    parser.add_argument("scenes", type=Path, help="folder that workflows.demo.scenes wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the encoder")
    parser.add_argument("--minutes", type=float, default=30, help="CPU time")
    options = parser.parse_args()
    recipe = Recipe(minutes=options.minutes)
    scenes, held_out = (read_scenes(options.scenes, split) for split in ("train", "test"))
    options.out.mkdir(parents=True, exist_ok=True)
    spent = train(recipe, scenes, held_out, options.out)
    drawn = json.loads((options.scenes / "scenes.json").read_text(encoding="utf-8"))
    record = {
        "recipe": asdict(recipe),
        "scenes": {name: drawn[name] for name in ("seed", "train", "test", "version")},
        "spent": spent,
    }
    text = json.dumps(record, indent=1) + "\n"
    (options.out / "training.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
