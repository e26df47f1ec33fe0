"""The demo's results as table, results.json and picture: python -m workflows.demo.report FOLDER."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import zarr
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from milan_pipeline.codecs.colours import TokenColours
from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.evaluate.scores_file import read_scores
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import Box
from milan_pipeline.pretraining.masking import sample_kept
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.random_access import SampleReader
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.weights.loaded_run import LoadedRun, load_run

ENCODERS = {
    "random": "the student, random weights",
    "student": "the student, pretrained",
    "teacher": "its teacher, the demo's CLIP",
}
SHOWN = 8
NEXT = """
What to try next, after `. .venv/bin/activate`:

1. Look at the run and at what it predicts, in a browser:
   milan-pipeline inspect {folder}/run --images {folder}/images/train \\
       --targets {folder}/targets.zarr --html {folder}/run.html
2. Train a smaller student from the same targets; CLIP does not run again:
   milan-pipeline pretrain --config demo --depth 2 --images {folder}/images/train \\
       --targets {folder}/target-shards --out {folder}/smaller
3. Pack photographs of your own, a sub-folder for each class; docs/own-images.md goes on with them:
   milan-pipeline pack-images PHOTOS {folder}/photos
"""


def main(arguments: list[str]) -> int:
    """Write FOLDER/results.json and FOLDER/demo.png; print the table and what to try next."""
    folder = Path(arguments[0])
    results = {name: _scores(folder / "probe" / name) for name in ENCODERS}
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(folder)
    print(f"Picture: {folder / 'demo.png'}. Accuracy on scenes that were held out:\n")
    print("| encoder, frozen | k-NN, % | linear, % |\n|---|---|---|")
    for name, scores in results.items():
        print(f"| {ENCODERS[name]} | {scores['knn']:.1f} | {scores['linear']:.1f} |")
    print(NEXT.format(folder=folder), end="")
    return 0


def _scores(folder: Path) -> dict[str, float]:
    metrics = read_scores(str(folder)).metrics
    return {"knn": metrics["knn@20"], "linear": metrics["linear"]}


def draw(folder: Path) -> None:
    """Draw views, priors, masks and the principal components of targets and predictions."""
    mpl.use("Agg")
    run = load_run(folder / "run")
    rows = _samples(folder, run)
    targets_BLD = np.stack([row["target"] for row in rows])
    pred_BLD = np.stack([row["prediction"] for row in rows])
    colours = TokenColours(targets_BLD.reshape(-1, targets_BLD.shape[-1]))
    height, width = run.grid
    figure, axes = plt.subplots(5, SHOWN, figsize=(1.5 * SHOWN, 8), layout="constrained")
    labels = ("view", "mask prior", "kept patches", "target", "prediction")
    for column, row in enumerate(rows):
        target, prediction = (
            colours(tokens_BLD[column]).reshape(height, width, 3)
            for tokens_BLD in (targets_BLD, pred_BLD)
        )
        pictures = (row["view"], row["prior"].reshape(height, width), row["masked_view"])
        for axis, picture in zip(axes[:, column], (*pictures, target, prediction), strict=True):
            axis.imshow(picture, cmap="magma")
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    figure.savefig(folder / "demo.png", dpi=110)
    plt.close(figure)


def _samples(folder: Path, run: LoadedRun) -> list[dict[str, Any]]:
    """Read the first samples of the store's first unit and let the student predict them."""
    images = load_manifest(str(folder / "images" / "train"), kind="images")
    shard = images.shards[0]
    table = load_index(images, shard)
    place = dict(zip(keys_of(table), table, strict=True))
    url = str(folder / "targets.zarr")
    store = zarr.open_group(url, mode="r")
    unit: Any = store[f"view-00/{shard.stem}"]
    codec = read_store_codec(url, read_identity(url))
    reader = SampleReader()
    rows = []
    for number in range(SHOWN):
        key = str(unit["key"][number])
        found = place[key]
        data = reader.read(
            images.url_of(shard), int(found["offset"]), int(found["length"]), int(found["xxh3"])
        )
        top, left, height, width = (int(value) for value in unit["box"][number])
        box = Box(top, left, height, width, bool(unit["flip"][number]))
        view_CHW = view_pixels(decode_rgb(data), box, run.image_size)
        codes_1NC = torch.from_numpy(unit["codes"][number : number + 1])
        has_scale = codec.spec.has_scale
        scale_1N = torch.from_numpy(unit["scale"][number : number + 1]) if has_scale else None
        target_ND = codec.decode(codes_1NC, scale_1N)[0]
        prior_L = decode_prior(unit["prior"][number])
        rows.append(_predict(run, view_CHW, target_ND, prior_L, key))
    reader.close()
    return rows


def _predict(
    run: LoadedRun,
    view_CHW: torch.Tensor,
    target_ND: torch.Tensor,
    prior_L: NDArray[np.float32],
    key: str,
) -> dict[str, Any]:
    kept_K, masked_M = sample_kept(prior_L, run.kept, seed=0, epoch=0, key=key)
    pred_ND = run.predict(view_CHW, torch.from_numpy(kept_K), torch.from_numpy(masked_M))
    patch = run.patch_size
    visible = np.zeros(len(prior_L), dtype=np.float32)
    visible[kept_K] = 1
    mask_HW = np.kron(visible.reshape(run.grid), np.ones((patch, patch), dtype=np.float32))
    view_HWC = view_CHW.permute(1, 2, 0).numpy() / 255
    normal = torch.nn.functional.normalize
    return {
        "view": view_HWC,
        "masked_view": view_HWC * mask_HW[:, :, None] + 0.5 * (1 - mask_HW[:, :, None]),
        "prior": prior_L,
        "target": normal(target_ND[1:], dim=-1).numpy(),
        "prediction": normal(pred_ND[1:], dim=-1).numpy(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
