"""No code comes out of data: pickles, arrays of objects, URLs that name a program, YAML objects."""

import functools
import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from milan_pipeline import storage
from milan_pipeline.models.weight_files import read_weights
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.training.checkpoint_io import load_checkpoint
from milan_pipeline.training.checkpoints import HASHES, MODEL
from tests.faults.campaign import COUNTS, attempt
from tests.faults.consumers import resumed, trained_on
from tests.faults.sentinel import plant, untouched
from tests.support.cli import run_cli
from tests.support.runs import model_and_optimiser, saved

KIND = "code in data"


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def trap(tmp_path: Path):
    """What an attack would make; it must not be there in the end."""
    path = tmp_path / "attacked"
    yield path
    assert not path.exists()
    COUNTS[KIND].require_none_failed()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_checkpoint_of_others(trap: Path, tmp_path: Path, suffix: str, form: str) -> None:
    """By the reader, and by the stage that it is for."""
    weights, document = tmp_path / f"weights{suffix}", {"model": Attack(trap)}
    if form == "torch":
        torch.save(document, weights)
    else:
        weights.write_bytes(pickle.dumps(document))
    attempt(KIND, weights.name, lambda: read_weights(str(weights)), names=[weights.name])
    run_cli("import-checkpoint", weights, "--out", tmp_path / "run", code=1)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_checkpoint_under_its_right_hash(trap: Path, tmp_path: Path, form: str) -> None:
    saved(tmp_path, [3])
    folder = tmp_path / "checkpoints/step-00000003"
    buffer = io.BytesIO()
    if form == "torch":
        torch.save({"weight": Attack(trap)}, buffer)
    else:
        pickle.dump(Attack(trap), buffer)
    (folder / MODEL).write_bytes(buffer.getvalue())
    hashes = json.loads((folder / HASHES).read_text())
    hashes[MODEL] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / HASHES).write_text(json.dumps(hashes))
    attempt(KIND, f"{MODEL} is a {form}", lambda: resumed(folder), names=[folder.name])


def test_an_array_of_objects(trap: Path, tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.array([Attack(trap)]), allow_pickle=True)
    (tmp_path / "x.index.npy").write_bytes(array.getvalue())
    digest = hashlib.sha256(array.getvalue()).hexdigest()
    shard = Shard(name="x.tar", samples=1, bytes=1, sha256="", index_sha256=digest)
    manifest = Manifest(kind="images", folder=str(tmp_path), shards=(shard,))
    attempt(KIND, "index.npy", lambda: load_index(manifest, shard), names=["x.index.npy"])


@pytest.mark.parametrize(
    "url", ["pipe:touch {}", "pipe://touch {}", "python://x", "file::pipe:touch {}", "exec://{}"]
)
def test_a_url_that_names_a_program(trap: Path, tmp_path: Path, url: str, world) -> None:
    """Given by an option, or by a manifest with its right hash."""
    url = url.format(trap)
    attempt(KIND, url, functools.partial(storage.read_bytes, url), names=[url])
    run_cli("index", f"{url}.tar", "--out", tmp_path / "out", code=1)
    manifest = load_manifest(str(world.images), kind="images")
    path = world.images / "manifest.json"
    good = path.read_bytes()
    named = Shard(**{**vars(manifest.shards[0]), "name": f"{url}/images-000000.tar"})
    Manifest(kind="images", folder=str(world.images), shards=(named, *manifest.shards[1:])).save()
    try:
        attempt(
            KIND, f"{url} in a manifest", lambda: trained_on(world.images, world.targets),
            names=[url, "images-000000"],
        )  # fmt: skip
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("target", ["../../outside/precious.jpg", "{root}/outside/precious.jpg"])
def test_a_checkpoint_that_names_files_elsewhere(target: str, tmp_path: Path) -> None:
    """Its list of hashes leads nowhere; nor does a list that leaves one of its files out."""
    saved(tmp_path / "run", [3])
    precious = plant(tmp_path / "outside")
    folder = tmp_path / "run/checkpoints/step-00000003"
    good = json.loads((folder / HASHES).read_text())
    name = target.format(root=tmp_path)
    foreign = good | {name: hashlib.sha256(precious.read_bytes()).hexdigest()}
    for hashes in (foreign, {k: v for k, v in good.items() if k != MODEL}, {}):
        (folder / HASHES).write_text(json.dumps(hashes))
        with untouched(tmp_path):
            attempt(
                KIND, f"{HASHES} with {sorted(hashes)}",
                lambda: load_checkpoint(folder, *model_and_optimiser()), names=[folder.name],
            )  # fmt: skip
    COUNTS[KIND].require_none_failed()
