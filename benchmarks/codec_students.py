"""Compares students trained on a codec's targets with students trained on float16 targets.

`python -m benchmarks.codec_students` takes the images of `make demo` and extracts the study's
targets of them (workflows/demo/study.yaml). It packs these with each codec, trains the study's
student on them from several seeds by the real commands, and probes every student on the same
held-out scenes. Students of one seed have the same first weights, order and masks, so they are
compared in pairs, scene by scene. If it is killed, the same command continues. The last line is one
JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine_line

ROOT = Path(__file__).parent.parent
CONFIG = ("--config", "workflows/demo/study.yaml")
BASELINE = "float16"
NORMAL_95 = 1.96


def stage(*words: str) -> None:
    """Run a stage from the project's root; it skips what is done already."""
    keeps_freed_memory = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", *words],
        cwd=ROOT,
        check=True,
        env=os.environ | keeps_freed_memory,
        stdout=sys.stderr,
    )


def make_test_scenes(out: Path, count: int) -> Path:
    """Paint and pack held-out scenes, as many as are asked for."""
    cli, scenes, images = "milan_pipeline", out / "scenes", out / "images"
    stage("workflows.demo.scenes", str(scenes), "--train", "12", "--test", str(count))
    stage(cli, "pack-images", str(scenes / "test"), str(images), *CONFIG)
    return images


def answers(demo: Path, out: Path, test: Path, codec: str, seed: int) -> NDArray[np.void]:
    """Train and probe one student; return a row for each scene: label, knn, linear."""
    cli, images, shards = "milan_pipeline", str(demo / "images/train"), out / "shards" / codec
    run, probe = out / "runs" / f"{codec}-{seed}", out / "probes" / f"{codec}-{seed}"
    targets = str(out / "targets.zarr")  # the demo's own have other views
    stage(cli, "extract-targets", "--images", images, "--out", targets, *CONFIG)
    stage(cli, "pack-targets", "--targets", targets, "--out", str(shards), "--codec", codec)
    stage(
        *(cli, "pretrain", "--images", images, "--targets", str(shards), "--out", str(run)),
        *("--seed", str(seed), *CONFIG),
    )
    stage(
        *(cli, "probe", "--encoder", str(run), "--train", images, "--val", str(test)),
        *("--crop-pct", "1", "--out", str(probe)),  # an object is sought in all of a scene
    )
    found: NDArray[np.void] = np.load(probe / "answers.npy", allow_pickle=False)
    return found


def paired(ours_SN: NDArray[np.bool_], theirs_SN: NDArray[np.bool_]) -> dict[str, Any]:
    """Compare right answers of S pairs of students on the same N scenes, in points (per cent).

    The interval is that of the mean over scenes, where a scene's difference is the mean over seeds:
    it says what these students would do on other scenes. The difference between seeds is given,
    too.
    """
    difference_SN = 100 * (ours_SN.astype(float) - theirs_SN)
    scene_N = difference_SN.mean(axis=0)
    margin = NORMAL_95 * float(scene_N.std(ddof=1)) / len(scene_N) ** 0.5
    mean = float(scene_N.mean())
    return {
        "accuracy": round(100 * float(ours_SN.mean()), 2),
        "difference": round(mean, 2),
        "interval": [round(mean - margin, 2), round(mean + margin, 2)],
        "by_seed": [round(float(value), 2) for value in difference_SN.mean(axis=1)],
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="what `make demo` left")
    parser.add_argument("--out", type=Path, default=Path("demo/codec-students"))
    parser.add_argument("--codecs", nargs="+", default=["high"], help="beside float16")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=10_000, help="held out")
    options = parser.parse_args(arguments)
    test = make_test_scenes(options.out, options.scenes)
    rows = {
        codec: np.stack(
            [answers(options.demo, options.out, test, codec, seed) for seed in range(options.seeds)]
        )
        for codec in [BASELINE, *options.codecs]
    }
    print(machine_line())
    result: dict[str, dict[str, Any]] = {}
    for codec, row_SN in rows.items():
        for score in ("linear", "knn"):
            ours, theirs = (row[score] == row["label"] for row in (row_SN, rows[BASELINE]))
            result.setdefault(codec, {})[score] = found = paired(ours, theirs)
            print(f"{codec:>16} {score:>6}: {found}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
