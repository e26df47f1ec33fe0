"""Whether `obstore` reads and writes an S3 store faster than s3fs, and with less CPU.

`python -m benchmarks.object_stores` starts moto's S3 server as a process of its own and, round by
round, has each client write objects of 8 MB, read them by ranges of 8 MB, and read samples of
100 kB in 16 threads, as training does. Figures are medians: MB/s, and CPU milliseconds of this
process for a megabyte. moto is pure Python, so throughput is mostly its own; the CPU is the
client's. obstore is no dependency: `pip install obstore`. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

from benchmarks.bookkeeping import s3_folder
from benchmarks.machine import machine_line

MB = 1_000_000
OBJECT, SAMPLE, THREADS = 8 * MB, 100_000, 16
Read = Callable[[str, int, int], Any]
Write = Callable[[str, bytes], Any]


def clients(bucket: str, endpoint: str) -> dict[str, tuple[Read, Write]]:
    """Return how each client reads a range and writes an object."""
    from obstore.store import S3Store  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415

    filesystem = fsspec.filesystem("s3", use_listings_cache=False)
    store = S3Store(
        bucket.removeprefix("s3://"),
        endpoint=endpoint,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    return {
        "s3fs": (
            lambda key, start, size: filesystem.cat_file(
                f"{bucket}/{key}", start=start, end=start + size
            ),
            lambda key, data: filesystem.pipe_file(f"{bucket}/{key}", data, chunksize=5 << 30),
        ),
        "obstore": (
            lambda key, start, size: bytes(store.get_range(key, start=start, length=size)),
            lambda key, data: store.put(key, data, use_multipart=False),
        ),
    }


def measure(read: Read, write: Write, objects: int) -> dict[str, tuple[float, float]]:
    """Return MB/s and CPU ms a MB of each kind of access."""
    data = bytes(OBJECT)
    keys = [f"{number:03d}" for number in range(objects)]
    samples = [(key, start) for key in keys for start in range(0, OBJECT, SAMPLE)]
    with ThreadPoolExecutor(THREADS) as pool, ThreadPoolExecutor(3) as few:
        jobs: dict[str, Callable[[], list[Any]]] = {
            "write": lambda: list(few.map(lambda key: write(key, data), keys)),
            "ranges": lambda: list(few.map(lambda key: read(key, 0, OBJECT), keys)),
            "samples": lambda: list(pool.map(lambda at: read(at[0], at[1], SAMPLE), samples)),
        }
        found = {}
        for name, job in jobs.items():
            started, cpu = time.perf_counter(), time.process_time()
            job()
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            size = objects * OBJECT / MB
            found[name] = size / seconds, cpu * 1000 / size
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare obstore with s3fs.")
    parser.add_argument("--objects", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(machine_line("s3fs", "obstore", "moto"))
    found: dict[str, list[dict[str, tuple[float, float]]]] = {"s3fs": [], "obstore": []}
    with s3_folder() as bucket:
        for _ in range(arguments.rounds):
            for name, client in clients(bucket, os.environ["AWS_ENDPOINT_URL"]).items():
                found[name].append(measure(*client, arguments.objects))
    figures: dict[str, float] = {}
    for name, rounds in found.items():
        for kind in rounds[0]:
            speed, cpu = (statistics.median(one[kind][at] for one in rounds) for at in (0, 1))
            print(f"{name:8} {kind:8} {speed:8.1f} MB/s {cpu:8.2f} CPU ms/MB")
            figures |= {f"{name}_{kind}_mb_s": round(speed, 1), f"{name}_{kind}_cpu": round(cpu, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
