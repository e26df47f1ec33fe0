"""Measure the demo's small CLIP on the demo's scenes: python -m workflows.demo.evaluate_clip.

Writes metrics.json beside the weights. Linear probes are fitted on the demo's training scenes and
scored on its test scenes; the CLIP was trained on neither. Baselines report their best setting.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torchvision.transforms import v2

from workflows.demo.captions import PROMPTS, with_article
from workflows.demo.model import FOLDER, load_model, new_model, normalise
from workflows.demo.pool import Pool, render, whole_views
from workflows.demo.shapes import CLASSES
from workflows.demo.tokenizer import WordTokenizer

Features = NDArray[np.float32]
SEED = 0
"""Of the demo's scenes; training used another."""

BATCH = 250


@torch.no_grad()
def image_features(model: CLIP, views: torch.Tensor) -> Features:
    """Image embeddings of (n, 3, VIEW, VIEW) uint8 views: (n, embed_dim) float32."""
    parts = [model.encode_image(normalise(part)) for part in torch.split(views, BATCH)]
    return np.asarray(torch.cat(parts))


@torch.no_grad()
def tower_features(model: CLIP, views: torch.Tensor) -> tuple[Features, Features]:
    """Final CLS token and mean patch token before the projection, each (n, width) float32."""
    tokens = []
    for part in torch.split(views, BATCH):
        found = model.visual.forward_intermediates(
            normalise(part), indices=1, normalize_intermediates=True, intermediates_only=True,
            output_fmt="NLC", output_extra_tokens=True,
        )  # fmt: skip
        patches, prefix = found["image_intermediates"][0], found["image_intermediates_prefix"][0]
        tokens.append((prefix[:, 0], patches.mean(1)))
    cls, mean = (np.asarray(torch.cat(column)) for column in zip(*tokens, strict=True))
    return cls, mean


def linear_accuracy(
    train: Features, labels: NDArray[np.int64], test: Features, truth: NDArray[np.int64],
    strength: float = 1.0,
) -> float:  # fmt: skip
    """Test accuracy of logistic regression on standardised features; `strength` is sklearn's C."""
    scaler = StandardScaler().fit(train)
    probe = LogisticRegression(C=strength, max_iter=500)
    probe.fit(scaler.transform(train), labels)
    return float(probe.score(scaler.transform(test), truth))


@torch.no_grad()
def zero_shot_accuracy(
    model: CLIP, tokenizer: WordTokenizer, features: Features, truth: NDArray[np.int64],
    classes: Sequence[str] = CLASSES,
) -> float:  # fmt: skip
    """Accuracy of the nearest class name, each averaged over PROMPTS."""
    names = []
    for name in classes:
        texts = [prompt.format(with_article(name)) for prompt in PROMPTS]
        names.append(model.encode_text(tokenizer(texts), normalize=True).mean(0))
    directions = torch.nn.functional.normalize(torch.stack(names), dim=-1)
    guess = (torch.from_numpy(features) @ directions.T).argmax(1)
    return float((guess.numpy() == truth).mean())


def quick_check(
    model: CLIP, tokenizer: WordTokenizer, pool: Pool, classes: Sequence[str] = CLASSES
) -> dict[str, float]:
    """Linear (fitted on one half, scored on the other) and zero-shot accuracy on some images."""
    features = image_features(model, whole_views(pool.pixels))
    # Every second one: photographs come class by class.
    parts = (features[::2], pool.labels[::2], features[1::2], pool.labels[1::2])
    return {
        "linear": linear_accuracy(*parts, strength=0.01),
        "zero_shot": zero_shot_accuracy(model, tokenizer, features, pool.labels, classes),
    }


def _pixels(views: torch.Tensor, side: int) -> Features:
    small = v2.functional.resize(views, [side, side], antialias=True)
    return np.asarray(small.flatten(1), dtype=np.float32)


def measure(folder: Path, train: Pool, test: Pool) -> dict[str, float]:
    """All accuracies on the test scenes."""
    labels, truth = train.labels, test.labels
    views, test_views = whole_views(train.pixels), whole_views(test.pixels)
    pixels = [
        linear_accuracy(_pixels(views, side), labels, _pixels(test_views, side), truth, strength)
        for side, strength in ((16, 1e-4), (16, 1e-3), (32, 1e-4), (32, 1e-3))
    ]
    torch.manual_seed(SEED)
    random = new_model().eval()
    towers = zip(tower_features(random, views), tower_features(random, test_views), strict=True)
    chance = [linear_accuracy(own, labels, held_out, truth) for own, held_out in towers]
    model, tokenizer = load_model(folder)
    own, held_out = image_features(model, views), image_features(model, test_views)
    cls, mean = zip(tower_features(model, views), tower_features(model, test_views), strict=True)
    return {
        "raw_pixels_linear": max(pixels),
        "random_encoder_linear": max(chance),
        "teacher_linear": linear_accuracy(own, labels, held_out, truth),
        "teacher_cls_linear": linear_accuracy(cls[0], labels, cls[1], truth),
        "teacher_mean_patch_linear": linear_accuracy(mean[0], labels, mean[1], truth),
        "teacher_zero_shot": zero_shot_accuracy(model, tokenizer, held_out, truth),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the demo's small CLIP.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the trained model")
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--test", type=int, default=2400)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    train = render(SEED, "train", options.train, options.workers)
    test = render(SEED, "test", options.test, options.workers)
    accuracy = {k: round(v, 4) for k, v in measure(options.folder, train, test).items()}
    metrics: dict[str, Any] = {
        "accuracy": accuracy,
        "classes": len(CLASSES),
        "train_scenes": options.train,
        "test_scenes": options.test,
        "scenes_seed": SEED,
        "training": json.loads((options.folder / "training.json").read_text(encoding="utf-8")),
        "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__},
    }
    text = json.dumps(metrics, indent=1) + "\n"
    (options.folder / "metrics.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
