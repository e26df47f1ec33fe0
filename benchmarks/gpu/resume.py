"""Killed and run again: extraction gives the same bytes, training the same weights."""

import os
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import torch

from benchmarks.extract_data import repeated_shards
from benchmarks.gpu.running import Figures, Findings, run_child
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import EPOCH, example_batch, pretraining, training
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.training.trainer import Trainer

KILLED = -signal.SIGKILL
SHARDS, STEPS, KILLED_AT, WIDTH = 4, 6, 4, 32
SAME_WEIGHTS = 1e-4
"""Of GPUs, on which sums may be taken in another order; relative to the largest weight."""


def extraction(setting: Setting, known: Figures, found: Findings) -> None:
    """Kill an extraction after its first unit, and compare what the next run ends with."""
    del known
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        repeated_shards(root / "images", SHARDS, setting.of(128, 8)).save()
        codes = [
            run_child(extract, setting, root, name, killed=killed)
            for name, killed in (("whole", False), ("killed", True), ("killed", False))
        ]
        if codes != [0, KILLED, 0]:
            found.problem(f"the processes ended with {codes}, not with {[0, KILLED, 0]}")
        whole, resumed = (_bytes_of(root / name) for name in ("whole", "killed"))
    differing = [name for name in whole if whole[name] != resumed.get(name)]
    found.figure("extraction: objects", len(whole))
    found.figure("extraction, killed and resumed: objects that differ", len(differing))
    if differing or not whole:
        found.problem(f"the killed run ended with other bytes, for one, in {differing[:1]}")


def extract(setting: Setting, root: Path, name: str, *, killed: bool) -> None:
    """Extract all shards into a store; be killed once the first unit is done."""
    manifest = load_manifest(str(root / "images"), kind="images")
    job = ExtractionJob(
        manifest=manifest,
        store=str(root / name),
        identity_hash="benchmark",
        teacher=setting.teacher("B/16", setting.precision),
        policy=ViewPolicy(),
        codec=make_codec("int8"),
        batch_size=setting.of(64, 4),
        workers=2,
    )
    budget = BadImageBudget(fraction=0, images=manifest.samples)
    for _ in extract_units(job, list_units(manifest, 1), budget, StopRequest()):
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def training_run(setting: Setting, known: Figures, found: Findings) -> None:
    """Kill a run after a checkpoint, resume it, and compare the last weights."""
    del known
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        codes = [
            run_child(train, setting, root, name, killed=killed)
            for name, killed in (("whole", False), ("killed", True), ("killed", False))
        ]
        if codes != [0, KILLED, 0]:
            found.problem(f"the processes ended with {codes}, not with {[0, KILLED, 0]}")
        whole, resumed = (
            torch.load(root / f"{name}.pt", weights_only=True) for name in ("whole", "killed")
        )
    apart = max(float((whole[name] - resumed[name]).abs().max()) for name in whole)
    largest = max(float(each.abs().max()) for each in whole.values())
    found.figure("training, killed and resumed: weights apart, relative", apart / largest)
    if apart / largest > (SAME_WEIGHTS if setting.on_gpu else 0):
        found.problem("the killed run ended with other weights")


def train(setting: Setting, root: Path, name: str, *, killed: bool) -> None:
    """Train a small student; be killed before a step that comes after a checkpoint."""
    small = Setting(device_name=setting.device_name, tiny=True)
    student = small.student("B/16", WIDTH)
    task = pretraining(student, make_codec("int8"), setting.precision)

    def batches_from(steps: range) -> Generator[Batch, None, None]:
        for step in steps:
            if killed and step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            yield example_batch(small, 8, WIDTH, seed=step)

    config = training(total_steps=STEPS, checkpoint_every=2, batch=8)
    trainer = Trainer(root / name, task, config, StepClock((EPOCH,)))
    trainer.train(batches_from, StopRequest())
    torch.save(
        {key: value.cpu() for key, value in student.state_dict().items()}, f"{root / name}.pt"
    )
