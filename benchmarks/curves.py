"""Loss curves of the demo student under each way to run it, against the plain run.

`python -m benchmarks.curves` paints scenes, extracts targets with the demo's own teacher, and
trains the demo student in fp32 by the real command: plainly, with `--compile`, in two processes,
with four micro batches a step, and with gradient checkpointing. A curve's deviation is the largest
difference of a step's loss from the plain run's, relative to the latter. It exits with 1 if a
curve is beyond its tolerance. The last line is one JSON object: the deviations.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import machine_line

ROOT = Path(__file__).parent.parent
CONFIG = ("--config", "workflows/demo/study.yaml")
BATCH = 128  # the recipe's, given so that four micro batches divide it
WAYS: dict[str, tuple[str, ...]] = {
    "compile": ("--compile",),
    "processes_2": ("--processes", "2"),
    "micro_batch": ("--micro-batch", str(BATCH // 4)),
    "checkpointing": ("--gradient-checkpointing",),
}
# All ways compute the same sums. Other kernels (compile) and other partial sums (processes, micro
# batches) add them in another order, which changes a loss by some 1e-7 of it. Training amplifies
# that: where a gradient is nearly zero, its rounding decides the direction of AdamW's step, whose
# size does not depend on the gradient's. The tolerance leaves room for that, and no more than
# elasticity is allowed.
REORDERED = 1e-5
# Checkpointing computes the very same kernels once more.
SAME_KERNELS = 1e-6
TOLERANCES = dict.fromkeys(WAYS, REORDERED) | {"checkpointing": SAME_KERNELS}


def command(*words: str, quiet: bool = True) -> None:
    """Run a module of this project from its root, with one OpenMP thread a process."""
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", *words],
        cwd=ROOT,
        check=True,
        # One thread each, so that partial sums differ by the way alone.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL if quiet else None,
    )


def make_data(folder: Path, scenes: int) -> None:
    """Paint scenes and extract one view of them, unless that is done."""
    images, store = str(folder / "images"), str(folder / "targets.zarr")
    stage = "milan_pipeline"
    command("workflows.demo.scenes", str(folder / "scenes"), "--train", str(scenes), "--test", "1")
    command(stage, "pack-images", str(folder / "scenes" / "train"), images, *CONFIG)
    extract = (stage, "extract-targets", "--images", images, "--out", store, *CONFIG)
    command(*extract, "--views", "1")
    shards = str(folder / "target-shards")
    command(stage, "pack-targets", "--targets", store, "--out", shards)


def curve(data: Path, out: Path, steps: int, *options: str) -> list[float]:
    """Train the demo student from the start; return each step's loss."""
    command(
        "milan_pipeline",
        "pretrain",
        *("--images", str(data / "images"), "--targets", str(data / "target-shards")),
        *("--out", str(out), *CONFIG, "--batch-size", str(BATCH)),
        *("--precision", "fp32", "--device", "cpu", "--max-steps", str(steps), *options),
    )
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [float(row["loss"]) for row in rows]


def deviation(curve: list[float], plain: list[float]) -> float:
    """Return the largest relative difference of two curves of as many steps."""
    return max(abs(a - b) / abs(b) for a, b in zip(curve, plain, strict=True))


def main() -> None:
    """Train in each way and print the deviation of its curve."""
    parser = argparse.ArgumentParser(description="Compare loss curves of the demo student.")
    parser.add_argument("--data", type=Path, help="folder to keep the data in; default: none")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes to paint; at least 128")
    parser.add_argument("--steps", type=int, default=30, help="steps of each run; at least 2")
    arguments = parser.parse_args()
    if arguments.scenes < BATCH or arguments.steps < 2:
        parser.error(f"--scenes must be at least {BATCH} and --steps at least 2")
    print(machine_line("torch"))
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "data"
        make_data(data, arguments.scenes)
        plain = curve(data, Path(folder) / "plain", arguments.steps)
        print(f"plain: {len(plain)} steps, loss {plain[0]:.4f} to {plain[-1]:.4f}")
        found = {}
        for name, options in WAYS.items():
            other = curve(data, Path(folder) / name, arguments.steps, *options)
            found[name] = deviation(other, plain)
            print(f"{name:14} {found[name]:.1e} of at most {TOLERANCES[name]:.0e}", flush=True)
    print(json.dumps({name: float(f"{value:.3g}") for name, value in found.items()}))
    beyond = [name for name, value in found.items() if not value <= TOLERANCES[name]]
    if beyond:
        sys.exit(f"beyond its tolerance: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
