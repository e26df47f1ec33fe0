"""Time and memory for the order of one block of a lane among 1.28 billion pairs.

`python -m benchmarks.order` times, for several ranks, everything from the counts of the shards to
a shuffled block of the rank's first lane, in the middle of an epoch. `seconds` is the slowest, and
`peak_mb` the most memory allocated meanwhile (by tracemalloc, which counts numpy's arrays), with
the counts. Time and memory are measured in separate passes, since tracing takes time.
The last line is one JSON object.
"""

import argparse
import json
import time
import tracemalloc

import numpy as np

from benchmarks.machine import machine_line
from milan_pipeline.data.order import EpochOrder, OrderConfig, lanes_of

RANKS, WORLD, EPOCH = (0, 3, 7), 8, 5
CONFIG = OrderConfig(seed=0, batch=4096, lanes=64, block=4096)


def block_of_rank(shards: int, samples: int, rank: int) -> int:
    """Order the middle block of a rank's first lane; return how many pairs it has."""
    order = EpochOrder(np.full(shards, samples, dtype=np.int64), CONFIG, EPOCH)
    lane = lanes_of(rank, WORLD, range(CONFIG.lanes))[0]
    middle = order.steps * CONFIG.per_lane // 2 // CONFIG.block
    return len(order.lane_block(lane, middle))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the order of a very large epoch.")
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=12_800, help="in each shard")
    arguments = parser.parse_args()
    shards, samples = arguments.shards, arguments.samples
    print(machine_line("numpy"))
    print(f"{shards} shards x {samples} samples, {CONFIG.lanes} lanes, block {CONFIG.block}")
    seconds, megabytes = [], []
    for rank in RANKS:
        started = time.perf_counter()
        pairs = block_of_rank(shards, samples, rank)
        seconds.append(time.perf_counter() - started)
        tracemalloc.start()
        block_of_rank(shards, samples, rank)
        megabytes.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
        print(f"rank {rank} of {WORLD}: {pairs} pairs, {seconds[-1]:.4f} s, {megabytes[-1]:.1f} MB")
    print(json.dumps({"seconds": round(max(seconds), 4), "peak_mb": round(max(megabytes), 1)}))


if __name__ == "__main__":
    main()
