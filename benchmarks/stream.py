"""Images a second of one core: our stream compared with the least work and with other readers.

`python -m benchmarks.stream` makes photo-like JPEGs and targets of the size of CLIP ViT-B/16's
(197 x 512, codec int8) and reads them in turns, in one process with one thread:

- floor: decode and crop-resize of JPEGs that lie in memory, by the fastest of three decoders;
- ours: `stream.batches`, from shards on disk to batches of patches, masks and encoded targets;
- ImageFolder: torchvision's, with the published augmentation (boxes of its own) and a DataLoader;
- webdataset: stock, images and targets joined by key, the targets' boxes cut by Pillow.

The last two need draw no masks, and ImageFolder reads no targets. All files are in the page cache;
seconds are CPU seconds of the process, so that other processes do not matter. Ratios are
medians over rounds. The last line is one JSON object: `floor_share` is ours over the floor.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.machine import machine_line
from benchmarks.stream_data import HEIGHT, WIDTH, World, make_world
from benchmarks.stream_rivals import DECODERS, floor, image_folder, stock_webdataset
from milan_pipeline.data.order import OrderConfig
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches
from milan_pipeline.images.views import Box
from milan_pipeline.pretraining.examples import ExampleConfig, ToExamples

SIZE, PATCH_SIZE, KEPT, BATCH, LANES = 224, 16, 49, 48, 8
PACKAGES = ("torch", "torchvision", "webdataset", "simplejpeg", "pillow", "numpy")
CALIBRATION_IMAGES = 100


def our_stream(world: World) -> Callable[[], int]:
    """Prepare one epoch of our stream, in this process."""
    order = OrderConfig(seed=0, batch=BATCH, lanes=LANES, block=4096)
    config = ExampleConfig(
        image_size=SIZE, patch_size=PATCH_SIZE, kept=KEPT, mask_seed=0, layouts=(world.layout,)
    )
    samples = PairSamples(world.pairs)
    steps = range(int(world.pairs.counts(0).sum()) // LANES // (BATCH // LANES))
    return lambda: sum(
        len(batch.keys)
        for batch in batches(samples, order, ToExamples(config), steps=steps, workers=0)
    )


def boxes_of(world: World) -> list[Box]:
    """Return the boxes that the targets were made with, in the JPEGs' order."""
    found: list[Box] = []
    for number in range(len(world.pairs.counts(0))):
        _, (target,) = world.pairs.files(0, number)
        data = Path(target.url).read_bytes()
        for offset, length, _ in world.pairs.joined(0, number).target_rows[0].tolist():
            record = world.layout.from_bytes(data[offset : offset + length])
            top, left, height, width = (int(value) for value in record["box"])
            found.append(Box(top, left, height, width, bool(record["flip"])))
    return found


def rates_in_turns(
    contestants: dict[str, Callable[[], int]], rounds: int
) -> list[dict[str, float]]:
    """Run each contestant over all images, `rounds` times; return images a second."""
    found = []
    for turn in range(rounds):
        names = list(contestants)
        rates = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.process_time()
            images = contestants[name]()
            rates[name] = images / (time.process_time() - started)
        found.append(rates)
    return found


def median_ratio(rounds: list[dict[str, float]], ours: str, theirs: str) -> float:
    """Return the median over rounds of one contestant's rate over another's."""
    return statistics.median(rates[ours] / rates[theirs] for rates in rounds)


def fastest_decoder(jpegs: list[bytes], boxes: list[Box]) -> str:
    """Time each decoder on a few images, print the results and return the fastest one."""

    def trial(name: str) -> Callable[[], int]:
        few = slice(CALIBRATION_IMAGES)
        return lambda: floor(jpegs[few], boxes[few], name, SIZE)

    rounds = rates_in_turns({name: trial(name) for name in DECODERS}, 2 * len(DECODERS))
    medians = {name: statistics.median(rates[name] for rates in rounds) for name in DECODERS}
    print("decode + crop-resize, images/s:", {name: round(rate) for name, rate in medians.items()})
    return max(medians, key=medians.__getitem__)


def main() -> None:
    """Measure, print a table and the ratios."""
    parser = argparse.ArgumentParser(description="Measure the stream on one core.")
    parser.add_argument("--images", type=int, default=600, help="JPEGs to make; at least 100")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    arguments = parser.parse_args()
    if arguments.images < CALIBRATION_IMAGES or arguments.rounds < 1:
        parser.error("--images must be at least 100 and --rounds at least 1")
    torch.set_num_threads(1)
    print(machine_line(*PACKAGES))
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), arguments.images)
        report(world, arguments.rounds)


def report(world: World, rounds: int) -> None:
    """Run the contestants and print what they reached."""
    mean = statistics.mean(len(data) for data in world.jpegs)
    print(f"{len(world.jpegs)} JPEGs of {WIDTH}x{HEIGHT} pixels, {mean / 1000:.0f} kB on average;")
    print(f"targets of {world.layout.codec.name}, {world.layout.bytes_per_sample / 1000:.0f} kB")
    boxes = boxes_of(world)
    decoder = fastest_decoder(world.jpegs, boxes)
    contestants = {
        "floor": lambda: floor(world.jpegs, boxes, decoder, SIZE),
        "ours": our_stream(world),
        "imagefolder": image_folder(world, size=SIZE, batch=BATCH),
        "webdataset": stock_webdataset(world, size=SIZE, batch=BATCH),
    }
    measured = rates_in_turns(contestants, rounds)
    print(f"\n{'contestant':14}{'images/s (median)':>20}{'ours over it':>14}")
    for name in contestants:
        rate = statistics.median(rates[name] for rates in measured)
        ratio = median_ratio(measured, "ours", name)
        print(f"{name + (f' ({decoder})' if name == 'floor' else ''):22}{rate:12.0f}{ratio:14.2f}")
    names = {"floor_share": "floor", "vs_imagefolder": "imagefolder", "vs_webdataset": "webdataset"}
    ratios = {key: round(median_ratio(measured, "ours", name), 3) for key, name in names.items()}
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
