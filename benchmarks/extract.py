"""What extraction costs in addition to its necessary work: CPU seconds an image.

`python -m benchmarks.extract` makes photo-like JPEGs of 500x375 pixels and extracts targets of the
size of CLIP ViT-B/16's (197 x 512, codec int8) at two points, in turns within each:

- *feeding*, on one core: a teacher that returns ready-made features, as a very fast
  GPU would. Ours (read, decode, crop, encode, write) against the floor (decode and crop-resize of
  JPEGs in memory, by the fastest of three decoders) and against a plain extractor
  (see extract_rivals.py). `feed_share` is our images a CPU second over the floor's, `feed_vs_plain`
  over the plain one's.
- *compute-bound*, on all cores: ViT-B/16 with random weights, computed by the CPU. `cpu_over_floor`
  is our CPU seconds an image over those of the bare teacher plus the floor's.

All files are in the page cache; each writes into an empty folder. Ratios are medians over rounds.
`peak_mb` is the most memory that a process takes to extract a number of shards of 64 images, with
libraries and ready-made features. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.contest import Contestant, median_ratio
from benchmarks.extract_contestants import (
    EMPTY,
    RUN,
    serve_computed,
    serve_floor,
    serve_ours,
    serve_plain,
    serve_repeated,
    serve_teacher,
)
from benchmarks.extract_data import BATCH, load_photos, make_photos
from benchmarks.machine import machine_line
from benchmarks.stream import CALIBRATION_IMAGES, fastest_decoder

PACKAGES = ("torch", "open_clip_torch", "zarr", "simplejpeg", "pillow", "numpy")
SHARDS = 2
SHARD_COUNTS = (4, 16, 64)

Costs = dict[str, list[float]]


def in_turns(contestants: dict[Contestant, int], rounds: int, title: str) -> Costs:
    """Run each contestant once a round; print and return their CPU seconds an image, by name.

    Args:
        contestants: each with how many images it does in a run.
        rounds: in each, another one begins.
        title: of the table.
    """
    costs: Costs = {contestant.name: [] for contestant in contestants}
    order = list(contestants)
    for turn in range(rounds):
        first = turn % len(order)
        for contestant in order[first:] + order[:first]:
            contestant.seconds(EMPTY)
            costs[contestant.name].append(contestant.seconds(RUN) / contestants[contestant])
    print(f"\n{title + ':':40}{'ms of CPU an image':>20}")
    for name, seconds in costs.items():
        print(f"  {name:38}{1000 * statistics.median(seconds):20.3f}")
    return costs


def feeding(root: Path, images: int, rounds: int, decoder: str) -> dict[str, float]:
    """Measure with ready-made features, on one core."""
    with ExitStack() as stack:
        contestants = {
            "floor": Contestant(
                "floor", serve_floor, root=root, out=root / "floor", decoder=decoder
            ),
            "ours": Contestant("ours", serve_ours, root=root, out=root / "ours"),
            "plain": Contestant("plain", serve_plain, root=root, out=root / "plain"),
        }
        ready = [stack.enter_context(contestant) for contestant in contestants.values()]
        costs = in_turns(dict.fromkeys(ready, images), rounds, "feeding, one core")
    return {
        "feed_share": median_ratio(costs["floor"], costs["ours"]),
        "feed_vs_plain": median_ratio(costs["plain"], costs["ours"]),
    }


def compute_bound(
    root: Path, images: int, rounds: int, decoder: str, precision: str
) -> dict[str, float]:
    """Measure with a teacher that the CPU computes."""
    out, rows = root / "computed", min(BATCH, -(-images // SHARDS))  # as the stage has them
    with ExitStack() as stack:
        contestants = {
            Contestant("floor", serve_floor, root=root, out=out, decoder=decoder): images,
            Contestant("teacher", serve_teacher, out=out, precision=precision, rows=rows): rows,
            Contestant("ours", serve_computed, root=root, out=out, precision=precision): images,
        }
        for contestant in contestants:
            stack.enter_context(contestant)
        costs = in_turns(contestants, rounds, f"compute-bound, ViT-B/16 in {precision}")
    floors = [sum(both) for both in zip(costs["floor"], costs["teacher"], strict=True)]
    return {"cpu_over_floor": median_ratio(costs["ours"], floors)}


def peaks(root: Path) -> dict[int, int]:
    """Return the most memory of a process, in MB, by how many shards it extracts."""
    found = {}
    for shards in SHARD_COUNTS:
        out = root / f"peak-{shards}"
        with Contestant("peak", serve_repeated, root=root, out=out, shards=shards) as contestant:
            found[shards] = round(contestant.peak_mb())
    return found


def main() -> None:
    """Measure, print tables and the ratios."""
    parser = argparse.ArgumentParser(description="Measure what extraction costs.")
    parser.add_argument("--images", type=int, default=384, help="JPEGs for feeding; at least 100")
    parser.add_argument("--computed", type=int, default=64, help="images that ViT-B/16 computes")
    parser.add_argument("--rounds", type=int, default=5, help="turns of feeding; half of computing")
    parser.add_argument("--precision", default="bf16", help="of ViT-B/16's weights")
    arguments = parser.parse_args()
    if arguments.images < CALIBRATION_IMAGES or min(arguments.computed, arguments.rounds) < 1:
        parser.error("--images must be at least 100, --computed and --rounds at least 1")
    torch.set_num_threads(1)
    print(machine_line(*PACKAGES))
    with tempfile.TemporaryDirectory() as folder:
        feed, compute = Path(folder) / "feed", Path(folder) / "compute"
        make_photos(feed, arguments.images, SHARDS)
        make_photos(compute, arguments.computed, SHARDS)
        photos = load_photos(feed)
        decoder = fastest_decoder(photos.jpegs, photos.boxes)
        found = feeding(feed, arguments.images, arguments.rounds, decoder)
        rounds = (arguments.rounds + 1) // 2
        found |= compute_bound(compute, arguments.computed, rounds, decoder, arguments.precision)
        peak_mb = peaks(Path(folder))
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps(rounded | {"peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
