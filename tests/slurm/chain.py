"""The demo's chain at a small size: its recipe, its images, its outputs, run here or by Slurm."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from milan_pipeline.cli.recipes import find_recipe
from tests.faults.sameness import files

PATIENCE = 900.0
SMALL = {
    "extract-targets": {"views": 2, "precision": "fp32", "batch-size": 10, "workers": 1},
    "pretrain": {
        "depth": 1, "decoder-depth": 1, "epochs": 60, "batch-size": 16, "checkpoint-every": 20,
        "log-every": 1, "workers": 0,
    },
    "finetune": {"epochs": 3, "batch-size": 16, "log-every": 1, "workers": 0},
}  # fmt: skip
STEPS = 60 * (60 // 16)
PARTS = 3
MILAN = (sys.executable, "-m", "milan_pipeline")


def write_recipe(path: Path) -> Path:
    """Write the demo's recipe at a small size; its teacher is found from the checkout's root."""
    document = yaml.safe_load(find_recipe("demo").read_text(encoding="utf-8"))
    recipe = {stage: document.get(stage, {}) | less for stage, less in SMALL.items()}
    path.write_text(yaml.safe_dump(recipe))
    return path


def write_images(root: Path) -> None:
    """Draw and pack 60 scenes to learn from, and 12 to score on."""
    run = (sys.executable, "-m", "workflows.demo.scenes", str(root / "scenes"))
    subprocess.run([*run, "--train", "60", "--test", "12"], check=True)
    for split in ("train", "test"):
        words = ("pack-images", root / "scenes" / split, root / split, "--samples-per-shard", 10)
        milan(*words)


def milan(*words: object) -> str:
    """Run a command and return what it says."""
    command = [*MILAN, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run_here(recipe: Path, images: Path, out: Path) -> None:
    """Run the chain's stages one after the other, training in two processes."""
    own, train = ("--config", recipe), images / "train"
    store, shards, run = out / "targets.zarr", out / "target-shards", out / "run"
    milan("extract-targets", *own, "--images", train, "--out", store)
    milan("pack-targets", *own, "--targets", store, "--out", shards)
    two = ("--processes", 2)
    milan("pretrain", *own, "--images", train, "--targets", shards, "--out", run, *two)
    data = ("--train", train, "--val", images / "test")
    milan("finetune", *own, "--encoder", run, *data, "--out", out / "finetune", *two)


def outputs(out: Path) -> dict[str, bytes]:
    """Every byte that must not depend on who ran the chain: not records, which tell of times."""
    found: dict[str, bytes] = {}
    for folder in ("targets.zarr", "target-shards"):
        found |= {f"{folder}/{name}": data for name, data in files(out / folder).items()}
    last = f"checkpoints/step-{STEPS:08d}"
    found |= {f"run/{name}": data for name, data in files(out / "run" / last).items()}
    for name in ("run/encoder.safetensors", "finetune/finetuned.safetensors"):
        found[name] = (out / name).read_bytes()
    for name in ("targets.zarr/extract-targets.json", "target-shards/pack-targets.json"):
        del found[name]
    return found


def losses(run: Path) -> list[float]:
    """The loss of each step, each of which is logged once."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def steps_of(run: Path) -> int:
    """How many steps are logged."""
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def slurm(environment: dict[str, str], *words: str) -> str:
    """Run one of Slurm's commands and return what it says."""
    answer = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    return answer.stdout


def wait_until(holds: Callable[[], bool], environment: dict[str, str]) -> None:
    """Ask Slurm after its queue until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, slurm(environment, "squeue", "--states=all")
        slurm(environment, "squeue", "--noheader")


def wait_for_all(environment: dict[str, str], jobs: list[str]) -> None:
    """Wait until jobs have ended, however they did: by an empty job that depends on them."""
    wait = ["sbatch", "--wait", f"--dependency=afterany:{':'.join(jobs)}", "--output=/dev/null"]
    subprocess.run([*wait, "--wrap=true"], env=environment, check=True, timeout=PATIENCE)


def states_of(environment: dict[str, str], jobs: list[str]) -> set[str]:
    """The states that jobs and their tasks are in."""
    asked = ("squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={','.join(jobs)}")
    return set(slurm(environment, *asked).split())


def environment_of(environment: dict[str, str]) -> dict[str, str]:
    """What jobs find: this checkout, this interpreter's commands, one thread a process."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    root = str(Path(__file__).parents[2])
    return environment | {"PATH": path, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
