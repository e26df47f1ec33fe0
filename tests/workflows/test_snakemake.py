"""The stages as Snakemake rules: which jobs there are, what reruns, what a kill leaves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.pictures import write_picture

SNAKEFILE = Path(__file__).parents[2] / "workflows" / "snakemake" / "Snakefile"
ALL = {
    "pack_images": 2, "init_targets": 1, "extract_targets": 2, "pack_targets": 1, "pretrain": 1,
    "probe": 1, "all": 1,
}  # fmt: skip
STUDENT = {
    "student": "vit_tiny_patch16_224", "patch-size": 8, "width": 32, "depth": 1, "heads": 2,
    "decoder-width": 32, "decoder-depth": 1, "decoder-heads": 2, "max-steps": 2, "workers": 0,
    "batch-size": 8,
}  # fmt: skip
# Python runs it first in every process: the first part dies once its first unit is marked done.
KILL_A_PART = """
import os, signal, sys
if "--part" in sys.orig_argv:
    from milan_pipeline import storage
    put = storage.put_bytes
    def put_and_die(url, data):
        put(url, data)
        if "/done/" in url:
            os.kill(os.getpid(), signal.SIGKILL)
    storage.put_bytes = put_and_die
"""


def snakemake(folder: Path, *words: object, code: int = 0, first: Path | None = None) -> str:
    """Run Snakemake in a folder; `first` is a folder of modules that come before all others."""
    command = [sys.executable, "-m", "snakemake", "-s", SNAKEFILE, "-c", 2, *words]
    paths = [str(first)] * (first is not None) + [path for path in sys.path if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def planned(folder: Path, *words: object) -> dict[str, int]:
    """The jobs that Snakemake would run: rule -> how many."""
    output = snakemake(folder, "--dry-run", *words)
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)
            if rule != "total"}  # fmt: skip


def write_config(folder: Path, **changes: object) -> Path:
    """Write what the Snakefile is to do with the images in `folder`."""
    images = {split: str(folder / split) for split in ("train", "test")}
    values = {"recipe": "recipe.yaml", "out": "out", "scenes": None, "images": images} | changes
    path = folder / "snakemake.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def world(tmp_path: Path, tiny_clip: Path) -> Path:
    """A folder with images of two classes, a recipe for them and a configuration."""
    for split, count in (("train", 16), ("test", 6)):
        for number in range(count):
            write_picture(tmp_path / split / "ab"[number % 2] / f"{number}.jpg", number)
    recipe = {
        "pack-images": {"samples-per-shard": 4},
        "extract-targets": {"teacher": f"local-dir:{tiny_clip}", "precision": "fp32"},
        "pretrain": STUDENT,
        "probe": {"linear": "none"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_config(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_demo_is_the_default(tmp_path: Path) -> None:
    assert planned(tmp_path) == ALL | {"scenes": 1}


@pytest.mark.slow
def test_the_slurm_profile_is_one_that_snakemake_takes(tmp_path: Path) -> None:
    profile = ("--workflow-profile", SNAKEFILE.parent / "profiles" / "slurm")
    assert planned(tmp_path, *profile) == ALL | {"scenes": 1}


@pytest.mark.slow
def test_what_is_killed_goes_on_and_what_is_touched_reruns_alone(world: Path) -> None:
    config = ("--configfile", "snakemake.yaml")
    killer = world / "killer"
    killer.mkdir()
    (killer / "sitecustomize.py").write_text(KILL_A_PART)
    snakemake(world, *config, code=1, first=killer)
    kept = {path: path.stat().st_mtime_ns for path in world.glob("out/targets.zarr/done/*/*.json")}
    packed = {path: path.stat().st_mtime_ns for path in world.glob("out/images/*/*.tar")}
    assert len(kept) in (1, 2)  # of four units: what was done when a part was killed
    assert len(packed) == 6

    snakemake(world, *config)
    assert len(list(world.glob("out/targets.zarr/done/*/*.json"))) == 4
    for path, modified in (kept | packed).items():
        assert path.stat().st_mtime_ns == modified, path
    assert json.loads((world / "out/run/state.json").read_text())["state"] == "done"
    scores = (world / "out/run/probe/scores.json").read_bytes()
    assert planned(world, *config) == {}

    os.utime(world / "test")
    again = snakemake(world, *config)
    assert re.findall(r"^(?:local)?rule (\w+):", again, re.MULTILINE) == [
        "pack_images",
        "probe",
        "all",
    ]
    assert again.count("nothing to do") == 2
    assert (world / "out/run/probe/scores.json").read_bytes() == scores

    longer = yaml.safe_load((world / "recipe.yaml").read_text())
    longer["pretrain"]["max-steps"] = 3
    (world / "recipe.yaml").write_text(yaml.safe_dump(longer))
    assert planned(world, *config) == {"pretrain": 1, "probe": 1, "all": 1}
