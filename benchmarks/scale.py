"""What grows with the data: starts, resumes and plans of stages on very many shards.

`python -m benchmarks.scale --shards N` makes the manifests of N image shards of 1,000 images and of
their targets, four views, all extracted and packed, behind a virtual object store
(`benchmarks/virtual_store.py`), and measures each row in a process of its own: seconds, the peak of
memory beyond what the process had before (its imports and the virtual store), and requests. Starts
of `pretrain` are those of one of 512 processes: opening the data, and reading the first samples.

`--shards 10000 1000000` measures both, and prints how much more time and memory each row takes with
the larger. Some rows do not depend on N, and are measured once: `finetune_start` (1.28 million
packed images), `transcode_high` (`--units` ImageNet-sized float16 units; a codec is fitted, and 64
images encoded) and those of `pack_images` (`--files`). `--only ROW` measures some, in this order.
The last line is one JSON object, of the largest N.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_line
from benchmarks.scale_rows import ROWS, Sizes
from benchmarks.scale_world import write_world

PACK_IMAGES = ("pack_images", "pack_images_flat", "pack_images_list")
FIXED = ("finetune_start", "transcode_high", *PACK_IMAGES)
"""Rows that do not depend on the number of shards."""
NO_WORLD = ("epoch_order", *FIXED)
"""Rows that read no manifest of N shards."""
MILLION = 1_000_000

Figures = dict[str, dict[str, Any]]
"""What was measured of each row."""


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if arguments.row:
        _measure_here(arguments)
        return
    print(machine_line("torch", "fsspec"))
    counts = sorted(arguments.shards)
    by_count = {}
    for count in counts:
        names = [n for n in arguments.only or ROWS if n not in FIXED or count == counts[-1]]
        by_count[count] = _measure(count, names)
    if len(counts) > 1:
        _print_growth(by_count)
    print(json.dumps(_summary(by_count[counts[-1]], arguments.files)))


def _measure(shards: int, names: list[str]) -> Figures:
    """Measure and print some rows on so many shards."""
    print(f"{shards} image shards x 4 views")
    print(f"{'row':24} {'seconds':>9} {'CPU s':>9} {'MB':>7}  requests", flush=True)
    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        if set(names) - set(NO_WORLD):
            started = time.perf_counter()
            _write_world_apart(folder, shards)
            _note(f"made-up data written in {time.perf_counter() - started:.0f} s")
        for number, name in enumerate(names, start=1):
            _note(f"row {number} of {len(names)}: {name} ...")
            found[name] = one = _in_a_process(name, folder, shards)
            requests = ", ".join(f"{count} {kind}" for kind, count in one["requests"].items())
            print(
                f"{name:24} {one['seconds']:9.3f} {one['cpu']:9.3f} {one['mb']:7.1f}  {requests}",
                flush=True,
            )
    return found


def _print_growth(by_count: dict[int, Figures]) -> None:
    """Print how many times the CPU time and the memory of the least data the most data take."""
    least, most = min(by_count), max(by_count)
    print(f"growth from {least} to {most} shards, which is {most / least:g} times the data")
    print(f"{'row':24} {'CPU s':>9} {'MB':>9}")
    for name, before in by_count[least].items():
        after = by_count[most][name]
        pairs = [(after[figure], before[figure]) for figure in ("cpu", "mb")]
        times = [f"{new / old:8.1f}x" if old else f"{'-':>9}" for new, old in pairs]
        print(f"{name:24} {' '.join(times)}")


def _write_world_apart(folder: str, shards: int) -> None:
    """Write the data in a process of its own, whose memory is free afterwards."""
    process = multiprocessing.get_context("spawn").Process(
        target=write_world, args=(Path(folder), shards)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the made-up data could not be written")


def _note(text: str) -> None:
    """Say on standard error how far this is."""
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what grows with the number of shards.")
    parser.add_argument("--shards", type=int, nargs="+", default=[1000], metavar="N")
    parser.add_argument("--files", type=int, default=100_000, help="of pack_images")
    parser.add_argument("--units", type=int, default=50, help="of transcode_high")
    parser.add_argument("--only", action="append", choices=list(ROWS), help="repeat for more rows")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(name: str, root: str, shards: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.scale", *sys.argv[1:]]
    words += ["--shards", str(shards), "--row", name, "--root", root]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure_here(arguments: argparse.Namespace) -> None:
    """Measure one row, and print the figures as JSON."""
    root = Path(arguments.root)
    sizes = Sizes(root, arguments.shards[0], arguments.files, arguments.units)
    with ROWS[arguments.row](sizes) as (function, bucket):
        before = _forget_peak()
        started, cpu = time.perf_counter(), time.process_time()
        function()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        peak = _memory("VmHWM") - before
    requests = {} if bucket is None else dict(bucket.kinds)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": peak, "requests": requests}))


def _forget_peak() -> float:
    """Have the kernel begin anew to note the peak of memory; return what is taken now, in MB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(name: str) -> float:
    """Return a line of the process's status in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / MILLION
    raise LookupError(name)


def _summary(found: Figures, files: int) -> dict[str, float | None]:
    def of(row: str, figure: str, times: float = 1.0) -> float | None:
        return round(found[row][figure] * times, 1) if row in found else None

    packing = [peak for row in PACK_IMAGES if (peak := of(row, "mb", MILLION / files)) is not None]
    return {
        "pretrain_start_s": of("pretrain_start", "seconds"),
        "pretrain_start_mb": of("pretrain_start", "mb"),
        "extract_resume_s": of("extract_resume", "seconds"),
        "finetune_start_s": of("finetune_start", "seconds"),
        "transcode_high_peak_mb": of("transcode_high", "mb"),
        "pack_images_mb_per_million": max(packing, default=None),
    }


if __name__ == "__main__":
    main()
