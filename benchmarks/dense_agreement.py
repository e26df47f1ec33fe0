"""Dense scores of ours and of other implementations, on equal features.

`python -m benchmarks.dense_agreement FOLDER` draws scenes with masks, encodes their patches with
the demo's CLIP, and scores them twice by nearest patches: by `probe --dense`, and by what is
written here with scikit-learn, NumPy and Pillow alone. Then it scores a head of
`segment --head linear --freeze` likewise, and fits scikit-learn's logistic regression to the same
features. The last line is one JSON object. If it is stopped, the same command goes on.

Legend: N images, S side of a view, G of the grid of patches, P = S / G, E width, Y classes, Q
patches that ask, M patches in the memory, K neighbours.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors
from torchvision.transforms.v2.functional import normalize

from benchmarks.codec_students import stage
from benchmarks.machine import machine_line
from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.evaluate.segmentation.files import read_segmenter

IGNORED, CLASSES, SIZE = 255, 13, 64
TEACHER = "local-dir:workflows/demo/teacher"
K, TEMPERATURE = 30, 0.02
BATCH = 100
PIXELS = 100  # of each image, that logistic regression learns from
Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


class Patches(NamedTuple):
    """Features of patches (N, G, G, E), and the labels of the pixels (N, S, S)."""

    feature_NGGE: Floats
    label_NSS: Labels


def miou(answer_NSS: NDArray[np.integer[Any]], label_NSS: Labels, classes: int) -> float:
    """Return the mean over classes in labels or answers, in per cent, by scikit-learn."""
    kept = label_NSS != IGNORED
    counts = confusion_matrix(label_NSS[kept], answer_NSS[kept], labels=np.arange(classes))
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float(100 * (counts.diagonal()[union > 0] / union[union > 0]).mean())


def enlarged(value_GGY: Floats, size: int) -> Floats:
    """Enlarge maps bilinearly by Pillow: (S, S, Y)."""
    maps = np.moveaxis(np.asarray(value_GGY, dtype=np.float32), -1, 0)
    large = [
        np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BILINEAR))
        for each in maps
    ]
    return np.stack(large, axis=-1)


def nearest(memory_ME: Floats, patch_QE: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the cosines (Q, K) of the nearest patches, and their places, by scikit-learn."""
    found = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute")
    distance_QK, place_QK = found.fit(memory_ME).kneighbors(patch_QE)
    return 1 - distance_QK, place_QK


def shares_of_patches(label_NSS: Labels, grid: int, classes: int) -> Floats:
    """Return the share of each class in the labelled pixels of each patch, (M, Y)."""
    images, size, _ = label_NSS.shape
    side = size // grid
    blocks = label_NSS.reshape(images, grid, side, grid, side).swapaxes(2, 3).reshape(-1, side**2)
    one_hot = blocks[:, :, None] == np.arange(classes, dtype=np.uint8)
    counts = one_hot.sum(axis=1)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), dtype=np.float32)


def miou_of_neighbours(train: Patches, test: Patches, classes: int) -> float:
    """Return the mIoU of `test` by the nearest patches of `train`, all of which are kept."""
    grid, width = train.feature_NGGE.shape[2:]
    share_MY = shares_of_patches(train.label_NSS, grid, classes)
    is_labelled = share_MY.sum(axis=1) > 0
    memory_ME = train.feature_NGGE.reshape(-1, width)[is_labelled]
    cosine_QK, place_QK = nearest(memory_ME, test.feature_NGGE.reshape(-1, width))
    vote_QK = np.exp((cosine_QK - cosine_QK.max(axis=1, keepdims=True)) / TEMPERATURE)
    vote_QK /= vote_QK.sum(axis=1, keepdims=True)
    share_QY = np.einsum("qk,qky->qy", vote_QK, share_MY[is_labelled][place_QK])
    share_NGGY = share_QY.reshape(*test.feature_NGGE.shape[:3], classes)
    size = test.label_NSS.shape[1]
    answers = [enlarged(share_GGY, size).argmax(axis=-1) for share_GGY in share_NGGY]
    return miou(np.stack(answers), test.label_NSS, classes)


def miou_of_logits(logit_NGGY: Floats, label_NSS: Labels) -> float:
    """Return the mIoU of logits that are enlarged to the view, and then to the masks."""
    size = label_NSS.shape[1]
    answers = [enlarged(enlarged(each, SIZE), size).argmax(axis=-1) for each in logit_NGGY]
    return miou(np.stack(answers), label_NSS, logit_NGGY.shape[-1])


def logits_of_head(head: torch.nn.Module, feature_NGGE: Floats) -> Floats:
    """Apply a BatchNorm and a 1x1 convolution, written out."""
    state = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    scale = state["norm.weight"] / np.sqrt(state["norm.running_var"] + 1e-5)
    normed = (feature_NGGE - state["norm.running_mean"]) * scale + state["norm.bias"]
    weight_YE = state["classifier.weight"][:, :, 0, 0]
    return np.asarray(normed @ weight_YE.T + state["classifier.bias"], dtype=np.float32)


def logits_of_regression(train: Patches, feature_NGGE: Floats) -> Floats:
    """Return the logits of a logistic regression of pixels, whose features are bilinear."""
    rng = np.random.default_rng(0)
    mean_E, std_E = (f(train.feature_NGGE, axis=(0, 1, 2)) for f in (np.mean, np.std))
    rows, classes = [], []
    for feature_GGE, label_SS in zip(train.feature_NGGE, train.label_NSS, strict=True):
        chosen = rng.choice(label_SS.size, PIXELS, replace=False)
        large_SSE = enlarged((feature_GGE - mean_E) / std_E, len(label_SS))
        rows.append(large_SSE.reshape(-1, len(mean_E))[chosen])
        classes.append(label_SS.reshape(-1)[chosen])
    fitted = LogisticRegression(max_iter=300).fit(np.concatenate(rows), np.concatenate(classes))
    normed = (feature_NGGE - mean_E) / std_E
    logits = fitted.decision_function(normed.reshape(-1, len(mean_E)))
    all_Y = np.full((len(logits), CLASSES), -1e9, dtype=np.float32)
    all_Y[:, fitted.classes_] = logits
    return all_Y.reshape(*feature_NGGE.shape[:3], CLASSES)


def pictures(scenes: Path, split: str) -> tuple[NDArray[np.uint8], Labels]:
    """Read the scenes of a split and their masks: (N, H, W, 3) and (N, H, W)."""
    files = sorted((scenes / split).rglob("*.jpg"))
    masks = [scenes / "masks" / file.relative_to(scenes).with_suffix(".png") for file in files]
    shown, labels = (
        np.stack([np.asarray(Image.open(file)) for file in some]) for some in (files, masks)
    )
    return shown, labels


def resized(array_NHW: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
    """Resize images or masks to views by Pillow."""
    return np.stack([np.asarray(Image.fromarray(a).resize((SIZE, SIZE), how)) for a in array_NHW])


def views_of(pictures_NHWC: NDArray[np.uint8]) -> torch.Tensor:
    """Return views (N, C, S, S), uint8."""
    views = resized(pictures_NHWC, Image.Resampling.BILINEAR)
    return torch.from_numpy(views.transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def features_of_segmenter(
    weights: Path, views_NCSS: torch.Tensor
) -> tuple[torch.nn.Module, Floats]:
    """Return the head of a segmenter, and what its encoder gives it (N, G, G, E)."""
    segmenter, description = read_segmenter(str(weights))
    encoder: Any = segmenter.eval().encoder
    parts = []
    for some in torch.split(views_NCSS, BATCH):
        pixels = normalize(some / 255, list(description.mean), list(description.std))
        (maps,) = encoder.forward_intermediates(
            pixels, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        parts.append(maps.permute(0, 2, 3, 1).numpy())
    return segmenter.head, np.concatenate(parts)


def metric_of(folder: Path, name: str) -> float:
    """Return a metric that a stage wrote."""
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return float(scores["metrics"][name])


def neighbours(out: Path, scenes: Path, places: tuple[str, ...], images: int) -> dict[str, float]:
    """Score by nearest patches: ours, and what is written here."""
    spec = f"open_clip:{TEACHER}"
    patches = (SIZE // 8) ** 2
    words = ("--memory", str(images * patches), "--classes", str(CLASSES), "--out", str(out))
    stage("milan_pipeline", "probe", "--dense", "--encoder", spec, *places, *words)
    encoder, found = load_encoder(spec), []
    for split in ("train", "test"):
        shown, masks = pictures(scenes, split)
        some = [encoder.patches(part).numpy() for part in torch.split(views_of(shown), BATCH)]
        grid = np.concatenate(some).reshape(len(shown), SIZE // 8, SIZE // 8, -1)
        found.append(Patches(grid, resized(masks, Image.Resampling.NEAREST)))
    train, test = found
    theirs = miou_of_neighbours(train, test, CLASSES)
    return {"ours": metric_of(out, f"knn-miou@{K}"), "independent": theirs}


def linear(out: Path, scenes: Path, places: tuple[str, ...], epochs: int) -> dict[str, float]:
    """Score a linear head: ours, the same head written out, and logistic regression."""
    words = f"--head linear --freeze --classes {CLASSES} --image-size {SIZE} --epochs {epochs} "
    words += "--least-scale 1 --most-scale 1 --no-photometric --evaluate whole --workers 0"
    spec = ("--encoder", f"open_clip:{TEACHER}", "--out", str(out))
    stage("milan_pipeline", "segment", *spec, *places, *words.split())
    weights = out / "segmenter.safetensors"
    shown, masks = pictures(scenes, "train")
    head, own_NGGE = features_of_segmenter(weights, views_of(shown))
    train = Patches(own_NGGE, resized(masks, Image.Resampling.NEAREST))
    shown, masks = pictures(scenes, "test")
    _, feature_NGGE = features_of_segmenter(weights, views_of(shown))
    return {
        "ours": metric_of(out, "miou"),
        "same head, independent": miou_of_logits(logits_of_head(head, feature_NGGE), masks),
        "logistic regression": miou_of_logits(logits_of_regression(train, feature_NGGE), masks),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare dense scores with other code's.")
    parser.add_argument("out", type=Path, help="folder for scenes, shards and scores")
    parser.add_argument("--train", type=int, default=400, help="scenes to learn from")
    parser.add_argument("--test", type=int, default=200, help="scenes to score on")
    parser.add_argument("--epochs", type=int, default=40, help="of the linear head")
    options = parser.parse_args()
    out: Path = options.out
    numbers = ("--train", str(options.train), "--test", str(options.test), "--seed", "5")
    stage("workflows.demo.scenes", str(out / "scenes"), *numbers, "--workers", "1")
    for split in ("train", "test"):
        masks = str(out / "scenes/masks" / split)
        packed = (str(out / "scenes" / split), str(out / "images" / split), "--masks", masks)
        stage("milan_pipeline", "pack-images", *packed)
    places = ("--train", str(out / "images/train"), "--val", str(out / "images/test"))
    found = {
        "neighbours": neighbours(out / "probe", out / "scenes", places, options.train),
        "linear": linear(out / "segment", out / "scenes", places, options.epochs),
    }
    print(machine_line("torch", "scikit-learn", "numpy"))
    for what, figures in found.items():
        print(f"{what}: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    print(json.dumps({"machine": machine_line("torch"), **found}))


if __name__ == "__main__":
    main()
