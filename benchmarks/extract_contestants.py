"""The contestants of `benchmarks.extract`: each has its own process and is timed by CPU seconds.

So none depends on what another one left in the memory or caches of its process.
"""

import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import turns
from benchmarks.extract_data import (
    SIZE,
    ReadyMade,
    extract,
    load_photos,
    repeated_shards,
    vit_b_16,
)
from benchmarks.extract_rivals import plain_extract
from benchmarks.stream_rivals import floor
from milan_pipeline.extraction.job import TargetTeacher

EMPTY, RUN = "empty", "run"
WORKERS = 2


def _serve(connection: "Connection[Any, Any]", out: Path, run: Callable[[], object]) -> None:
    """Run once to warm up, then once for each request, after `out` was emptied."""
    run()
    for what in turns(connection, time.process_time):
        if what == EMPTY:
            shutil.rmtree(out, ignore_errors=True)
        else:
            run()


def _on_one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def serve_floor(connection: "Connection[Any, Any]", *, root: Path, out: Path, decoder: str) -> None:
    """Decode and crop-resize JPEGs that lie in memory."""
    _on_one_core()
    photos = load_photos(root)
    _serve(connection, out, lambda: floor(photos.jpegs, photos.boxes, decoder, SIZE))


def serve_ours(connection: "Connection[Any, Any]", *, root: Path, out: Path) -> None:
    """Extract ready-made features as our stage does, but on one core."""
    _on_one_core()
    _serve_extraction(connection, root, out, ReadyMade())


def serve_plain(connection: "Connection[Any, Any]", *, root: Path, out: Path) -> None:
    """Extract ready-made features the plain way."""
    _on_one_core()
    folder, teacher = load_photos(root).folder, ReadyMade()
    _serve(connection, out, lambda: plain_extract(folder, teacher, out))


def serve_teacher(
    connection: "Connection[Any, Any]", *, out: Path, precision: str, rows: int
) -> None:
    """Run ViT-B/16 on a batch of so many rows, and nothing else."""
    teacher = vit_b_16(precision)
    pixels_BCSS = torch.randint(0, 256, (rows, 3, SIZE, SIZE), dtype=torch.uint8)
    _serve(connection, out, lambda: teacher(pixels_BCSS))


def serve_computed(
    connection: "Connection[Any, Any]", *, root: Path, out: Path, precision: str
) -> None:
    """Extract what ViT-B/16 computes, as our stage does."""
    _serve_extraction(connection, root, out, vit_b_16(precision))


def serve_repeated(
    connection: "Connection[Any, Any]", *, root: Path, out: Path, shards: int
) -> None:
    """Extract ready-made features of so many shards once, to measure memory."""
    torch.set_num_threads(1)
    manifest = repeated_shards(root / f"repeated-{shards}", shards)
    _serve(connection, out, lambda: extract(manifest, ReadyMade(), out, WORKERS))


def _serve_extraction(
    connection: "Connection[Any, Any]", root: Path, out: Path, teacher: TargetTeacher
) -> None:
    manifest = load_photos(root).manifest
    _serve(connection, out, lambda: extract(manifest, teacher, out, WORKERS))
