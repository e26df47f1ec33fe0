"""Time a training step on the stored targets of two teachers against that on those of one.

`python -m benchmarks.teachers_step` trains a ViT-B/16 student at 224 px, batch 8, in fp32. Our
trainer learns from one teacher (512 channels), from two (512 and 768), and from the same two
standardised by PHI-S, in alternating rounds and each in a process of its own. Every ratio is the
median over rounds of CPU times taken in the same round: of the student's step alone, and of the
whole step, pairs from disk. CPU time can be compared on a machine with other work, too.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from benchmarks.contest import Contestant, median_ratio
from benchmarks.machine import machine_line
from benchmarks.step_contestants import serve_ours
from benchmarks.stream_data import add_teacher, make_world
from milan_pipeline.data.join_pairs import join_pairs
from milan_pipeline.shards.columns import read_image_columns, read_target_columns

WIDTHS = (512, 768)
PHOTOS = 64
ONE, TWO, PHI_S = "one teacher", "two teachers", "two by PHI-S"


def contest(root: Path, *, batch: int, rounds: int, photos: int) -> dict[str, list[float]]:
    """Take turns; return CPU seconds by "who, what"."""
    world = make_world(root, photos, WIDTHS[0])
    folder, second = add_teacher(root, world.jpegs, WIDTHS[1])
    targets = [read_target_columns(place) for place in (str(root / "targets"), folder)]
    images = read_image_columns(str(root / "images"))
    both = {
        "pairs": join_pairs(images, targets, views=1, on_missing="error"),
        "layouts": (world.layout, second),
    }
    one = {"pairs": world.pairs, "layouts": (world.layout,)}
    times: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        contestants = [
            stack.enter_context(
                Contestant(name, serve_ours, batch=batch, bf16=False, cpu_time=True, **given)
            )
            for name, given in ((ONE, one), (TWO, both), (PHI_S, both | {"phi_s": True}))
        ]
        for _ in tqdm(range(rounds), unit="rounds", disable=None):
            for what in ("student", "whole"):
                for contestant in contestants:
                    times[f"{contestant.name}, {what}"].append(contestant.seconds(what))
    return times


def figures(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the ratios of the last line."""
    return {
        f"{name}, {what}": round(median_ratio(times[f"{who}, {what}"], times[f"{ONE}, {what}"]), 3)
        for who, name in ((TWO, "two"), (PHI_S, "two_phi_s"))
        for what in ("student", "whole")
    }


def main(argv: list[str] | None = None) -> int:
    """Run the contest, print CPU seconds and one line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.teachers_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    options = parser.parse_args(argv)
    print(machine_line("torch", "timm"), "CPU seconds, median (lowest, highest):", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        times = contest(
            Path(folder), batch=options.batch, rounds=options.rounds, photos=options.photos
        )
    for name, seconds in times.items():
        ends = f"{min(seconds):.2f}, {max(seconds):.2f}"
        print(f"  {name:22} {statistics.median(seconds):6.2f} s  ({ends})")
    print(json.dumps(figures(times)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
