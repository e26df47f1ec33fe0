"""Count the requests that stages send to an object store, and what they cost.

An object store is paid for by the request, whatever its size, and answers each one late. Only what
grows with the data is counted; docs/reliability.md has the table.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from milan_pipeline.planning.store_size import StoreSize
from milan_pipeline.shards.cache import PIECE_BYTES
from milan_pipeline.shards.sequential import Spans
from milan_pipeline.targets.units import Unit

PUT_PRICE, GET_PRICE = 0.005, 0.0004
"""US dollars for 1,000 requests to S3 Standard in us-east-1, by aws.amazon.com/s3/pricing (2026):
of PUT, COPY, POST and LIST, and of all others but DELETE, which is free."""
UNIT_READS = 4
"""GETs of a unit that is extracted: its mark, before it is read and before it is written, the index
of its image shard, and its view's group."""
NOT_PACKED = 2
"""Objects of a unit that packing does not read: those of its images' sizes."""
SHARD_PUTS = 2
"""A target shard and its index."""
PAIR_READS = 2
"""An image and its targets, without a cache."""


class Requests(NamedTuple):
    """How many requests of each kind."""

    puts: int = 0
    lists: int = 0
    gets: int = 0
    heads: int = 0
    deletes: int = 0

    def price(self, per_1000_puts: float = PUT_PRICE, per_1000_gets: float = GET_PRICE) -> float:
        """Return what they cost.

        Args:
            per_1000_puts: price of 1,000 PUTs or LISTs.
            per_1000_gets: price of 1,000 GETs or HEADs.
        """
        dear, cheap = self.puts + self.lists, self.gets + self.heads
        return (dear * per_1000_puts + cheap * per_1000_gets) / 1000


class JobRequests(NamedTuple):
    """Those of extracting all units, of packing them, and of one student's run.

    `training_cached` is with a `--cache` that holds what is shuffled together, at best.
    """

    extraction: Requests
    packing: Requests
    training: Requests
    training_cached: Requests


def job_requests(
    store: StoreSize,
    units: Sequence[Unit],
    *,
    image_bytes: float,
    pair_bytes: float,
    samples: int,
) -> JobRequests:
    """Count the requests of a job from image shards to a trained student.

    Args:
        store: counts the objects of a unit.
        units: all of them.
        image_bytes: mean size of the encoded images.
        pair_bytes: mean size of an image and its targets.
        samples: how many the student sees, over all epochs.
    """
    return JobRequests(
        extraction_requests(store, units, image_bytes),
        packing_requests(store, units),
        Requests(gets=PAIR_READS * samples),
        Requests(gets=math.ceil(pair_bytes * samples / PIECE_BYTES)),
    )


def extraction_requests(store: StoreSize, units: Iterable[Unit], image_bytes: float) -> Requests:
    """Count the requests of extracting units whose images have a mean size."""
    puts = gets = 0
    for unit in units:
        puts += store.objects(unit) + 1  # the mark
        gets += UNIT_READS + math.ceil(unit.shard.samples * image_bytes / Spans().most)
    return Requests(puts=puts, gets=gets)


def packing_requests(store: StoreSize, units: Iterable[Unit]) -> Requests:
    """Count the requests of packing units: their objects, marks, shards and indices."""
    reads = [store.objects(unit) - NOT_PACKED + 1 for unit in units]
    return Requests(puts=SHARD_PUTS * len(reads), gets=sum(reads))
