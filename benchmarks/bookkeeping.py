"""What the bookkeeping of many units costs: marks, manifest, record, and the start of a rerun.

`python -m benchmarks.bookkeeping` makes a store with `--units` marks of 50 objects each (as of a
shard of 1,500 images) but without targets, and the manifest of as many image shards. It measures,
in units/s: writing, listing and reading marks, finding out what is left, and reading and writing
manifest and record. `startup_s` is the wall time of the command `extract-targets` on this store,
where everything is done, with a tiny teacher: the median of `--repeats`, which are all printed;
`status_s` is the same for `status`. `startup_cpu_s` and `status_cpu_s` are their CPU times: if they
are far below the wall time, the machine was busy or waited for its disk. The files were just
written, so most are read from memory.

`--s3` measures the same on moto's S3 server (pure Python, on this machine, so slower than a real
one), with `--s3-units` units; its figures begin with `s3_`.
The last line is one JSON object.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import open_clip
import torch
from safetensors.torch import save_file

from benchmarks.machine import machine_line
from milan_pipeline import storage
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.provenance.record import read_record
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.plan import record_of, spec_of
from milan_pipeline.targets.layout import create_root
from milan_pipeline.targets.unit_list import list_units, undone_units
from milan_pipeline.targets.units import Mark, read_marks, view_name
from milan_pipeline.teacher.teacher import Teacher

ResultT = TypeVar("ResultT")

WRITERS = 16  # processes at work on an S3 store; one writes a local store's marks
ARRAYS = ("box", "codes", "digest", "flip", "key", "prior", "scale", "size")
OBJECTS = {
    **{f"{name}/zarr.json": "0" * 32 for name in ARRAYS},
    **{f"{name}/c/{chunk}/0": "0123456789abcdef" * 2 for name in ARRAYS for chunk in range(6)},
}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
}


def write_clip(folder: Path) -> Path:
    """Write a tiny open_clip model in `local-dir:` form."""
    torch.manual_seed(0)
    normalisation = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"model_cfg": CLIP, "preprocess_cfg": normalisation}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = open_clip.model.CLIP(**CLIP)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def timed(function: Callable[[], ResultT]) -> tuple[float, ResultT]:
    """Return the seconds that a call took, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def measure(folder: str, clip: Path, units: int, writers: int, repeats: int) -> dict[str, float]:
    """Write the marks and records of so many units, time that, and rerun the stage on them."""
    config = ExtractTargets(
        images=storage.join(folder, "shards"),
        out=storage.join(folder, "targets.zarr"),
        teacher=f"local-dir:{clip}",
    )
    spec = spec_of(config)
    identity = spec.identity(Teacher.load(spec.teacher), make_codec(config.codec).parameters())
    create_root(config.out, identity)
    shards = tuple(
        Shard(
            name=f"train-{number:06d}.tar",
            samples=1500,
            bytes=150_000_000,
            sha256=hashlib.sha256(b"%d" % number).hexdigest(),
            index_sha256=hashlib.sha256(b"i%d" % number).hexdigest(),
        )
        for number in range(units)
    )
    seconds = {}
    manifest = Manifest(kind="images", folder=config.images, shards=shards)
    seconds["manifest_write"], _ = timed(manifest.save)
    seconds["manifest_read"], _ = timed(lambda: load_manifest(config.images, kind="images"))
    todo = list_units(manifest, 1)
    marks = {
        unit.mark_path: Mark(
            shard=unit.shard.name,
            sha256=unit.shard.sha256,
            identity_hash=content_hash(identity),
            view=0,
            n=1499,
            skipped=[{"key": "n01440764_10026", "reason": "the image file is empty"}],
            objects=OBJECTS,
        )
        for unit in todo
    }

    def write(path: str) -> None:
        storage.put_bytes(storage.join(config.out, path), marks[path].to_bytes())

    with ThreadPoolExecutor(writers) as pool:
        seconds["mark_write"], _ = timed(lambda: list(pool.map(write, marks)))
    done = storage.join(config.out, "done", view_name(0))
    seconds["listing"], _ = timed(lambda: storage.list_names(done))
    seconds["mark_read"], found = timed(lambda: read_marks(config.out, 1))
    seconds["why_undone"], left = timed(lambda: undone_units(todo, found, content_hash(identity)))
    if left or len(found) != units:
        raise SystemExit(f"{len(left)} of {len(found)} units are left, where none should be")
    record = record_of(config, identity, manifest)
    seconds["record_write"], _ = timed(lambda: record.finish({}))
    seconds["record_read"], _ = timed(lambda: read_record(record.url))
    figures: dict[str, float] = {
        f"{name}_per_s": round(units / spent) for name, spent in seconds.items()
    }
    words = ["--images", config.images, "--out", config.out, "--teacher", config.teacher]
    figures |= command_figures("startup", repeats, "extract-targets", *words)
    return figures | command_figures("status", repeats, "status", config.out)


def command_figures(name: str, repeats: int, *words: str) -> dict[str, float]:
    """Run a command that finds everything done; return its median wall and CPU seconds."""
    command = [sys.executable, "-m", "milan_pipeline", *words]
    wall, cpu = [], []
    for _ in range(repeats):
        before = _cpu_of_children()
        spent, answer = timed(
            lambda: subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        )
        if not ("nothing to do" in answer.stdout or " 0 missing" in answer.stdout):
            raise SystemExit(f"{words[0]} had something to do: {answer.stdout}")
        wall.append(round(spent, 2))
        cpu.append(round(_cpu_of_children() - before, 2))
    load = os.getloadavg()[0]
    print(f"{words[0]}: wall {wall} s, CPU {cpu} s, load {load:.1f} at the end")
    return {f"{name}_s": statistics.median(wall), f"{name}_cpu_s": statistics.median(cpu)}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def s3_folder() -> Iterator[str]:
    """Run moto's S3 server as a process of its own, and yield a bucket's URL."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
            os.environ["AWS_ENDPOINT_URL"] = _address(server)
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir("s3://books")
            yield "s3://books"
        finally:
            server.terminate()


def _address(server: "subprocess.Popen[str]") -> str:
    """Read the server's address from its output; the rest of the output is dropped."""
    stream: Any = server.stderr
    line = next(line for line in stream if "Running on http" in line)
    ThreadPoolExecutor(1).submit(lambda: [None for _ in stream])
    return str(line.split("Running on ")[1].strip())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the bookkeeping of many units.")
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument(
        "--s3", action="store_true", help="measure against moto's S3 server as well"
    )
    parser.add_argument("--s3-units", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5, help="of the commands")
    arguments = parser.parse_args()
    print(machine_line("torch", "fsspec"))
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip")
        print(f"{arguments.units} units in a local folder, {len(OBJECTS)} objects a mark")
        figures = measure(folder, clip, arguments.units, 1, arguments.repeats)
        if arguments.s3:
            print(f"{arguments.s3_units} units behind moto's S3 server, {WRITERS} writers")
            with s3_folder() as bucket:
                on_s3 = measure(bucket, clip, arguments.s3_units, WRITERS, arguments.repeats)
            figures |= {f"s3_{name}": value for name, value in on_s3.items()}
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for name, value in figures.items():
        print(f"{name:24} {value:>12,}")
    print(json.dumps(figures | {"units": arguments.units, "command_peak_mb": kilobytes // 1000}))


if __name__ == "__main__":
    main()
