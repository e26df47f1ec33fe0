"""What counts as a command's output: weights, targets, members, answers; never a record."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from safetensors.torch import load_file

from milan_pipeline.models.student import patchify
from milan_pipeline.weights.loaded_run import load_run
from tests.options.running import Finished

Parts = dict[str, Any]


def run_folder(run: Finished) -> Parts:
    """Weights that were exported, scores by step, pictures, names of classes."""
    folder = Path(run.settings["out"])
    parts: Parts = {}
    for path in folder.glob("*.safetensors"):
        parts |= {f"{path.stem}: {name}": value for name, value in tensors(path).items()}
    for name in ("evaluations.jsonl", "examples.png"):
        if (folder / name).exists():
            parts[name] = (folder / name).read_bytes()
    scores = folder / "scores.json"
    if scores.exists() and (names := json.loads(scores.read_text()).get("class_names")):
        parts["class names"] = names
    return parts | metrics(folder)


def probe_folder(run: Finished) -> Parts:
    """Answers, if they are kept, and the share of them that is right."""
    answers = Path(run.settings["out"]) / "answers.npy"
    kept = {"answers": answers.read_bytes()} if answers.exists() else {}
    return kept | metrics(answers.parent)


def metrics(folder: Path) -> Parts:
    """The figures of scores.json in their order; their names tell options."""
    path = folder / "scores.json"
    return (
        {"metrics": list(json.loads(path.read_text())["metrics"].values())} if path.exists() else {}
    )


def tensors(path: Path) -> dict[str, Any]:
    """Read the tensors of a file; bfloat16, which numpy does not know, as float32."""
    found = {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
    return {name: tensor.numpy() for name, tensor in found.items()}


def store(run: Finished) -> Parts:
    """The arrays of a target store."""
    return {
        f"{view.name}/{name}": np.asarray(array[...])
        for view in Path(run.settings["out"]).glob("view-*")
        for name, array in zarr.open_group(view, mode="r").members(max_depth=None)
        if isinstance(array, zarr.Array)
    }


def shards(run: Finished) -> Parts:
    """The members of tars, by the tar's name, and which names there are."""
    folder = Path(run.settings.get("dest") or run.settings["out"])
    parts: Parts = {"names": sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))}
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                parts[f"{path.name}: {member.name}"] = file and file.read()
    return parts


def document(*left_out: str) -> Any:
    """Make what reads the JSON document that a command prints, but for some keys."""

    def read(run: Finished) -> Parts:
        found = json.loads(run.said)
        rows = found if isinstance(found, list) else [found]
        return {
            f"{number}: {name}": value
            for number, row in enumerate(rows)
            for name, value in row.items()
            if name not in left_out
        }

    return read


def index_folder(run: Finished) -> Parts:
    """What the manifest lists of each tar but for where that lies, and the indices."""
    folder = Path(run.settings["out"])
    listed = json.loads((folder / "manifest.json").read_text())["shards"]
    parts: Parts = {Path(row["name"]).name: row | {"name": None} for row in listed}
    return parts | {path.name: path.read_bytes() for path in folder.glob("*.npy")}


def exported(run: Finished) -> Parts:
    """Weights under the names that they have for others."""
    return tensors(Path(run.settings["out"]) / "model.safetensors")


def imported(run: Finished) -> Parts:
    """What the student predicts of an image of which it keeps as many patches as it was told."""
    found = load_run(Path(run.settings["out"]))
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (found.mean, found.std))
    image_CHW = (torch.linspace(0, 1, 3 * 64 * 64).view(3, 64, 64) - mean_C11) / std_C11
    patches_1LP = patchify(image_CHW[None], found.patch_size)
    kept_1K, masked_1M = torch.arange(patches_1LP.shape[1])[None].split(
        [found.kept, patches_1LP.shape[1] - found.kept], dim=1
    )
    with torch.no_grad():
        predicted = found.student(patches_1LP[:, : found.kept], kept_1K, masked_1M)
    return {"predicted": predicted.numpy()}


def page(run: Finished) -> Parts:
    """What is printed, and the page, but for where that lies which is looked at."""
    texts = {"said": run.said, "page": Path(run.settings["html"]).read_text()}
    for number, path in enumerate(run.settings["paths"]):
        texts = {name: text.replace(path, f"PATH {number}") for name, text in texts.items()}
    return texts


def scripts(run: Finished) -> Parts:
    """The jobs' scripts, as Slurm gets them."""
    folder = Path(run.settings["out"]) / "slurm"
    return {path.name: path.read_text() for path in folder.glob("*.sbatch")}
