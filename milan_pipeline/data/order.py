"""The order of samples: pure numpy, no input or output.

The samples of an epoch form one ring: the shards in a permuted order, and the samples of each shard
in file order. From a drawn start, the ring is divided into LANES equal contiguous spans, and each
span is shuffled in fixed blocks. Since the start is drawn, the samples that are left out differ
from epoch to epoch, even with a single shard. A global batch takes the same number from every lane.
Ranks and loader workers divide the lanes among themselves, so the sequence of global batches does
not depend on their number.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.errors import ConfigError

DEFAULT_LANES = 64
LANES_EACH = 8
"""By default, of a process: so many loader processes can share its part of a batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderConfig:
    """What the order depends on, apart from the number of samples in each shard.

    Attributes:
        seed: of shard order and block shuffles.
        batch: samples in a global batch; a multiple of `lanes`.
        lanes: equal sequences that an epoch is divided into; a multiple of the world size.
        block: samples of a lane that are shuffled together.
    """

    seed: int
    batch: int
    lanes: int
    block: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.lanes < 1 or self.block < 1:
            raise ConfigError(
                f"--batch-size {self.batch}, --lanes {self.lanes} and --shuffle-block {self.block} "
                "must each be at least 1"
            )
        if self.batch % self.lanes:
            below = self.batch // self.lanes * self.lanes
            fits = f"{below} or {below + self.lanes}" if below else f"{self.lanes}"
            raise ConfigError(
                f"--batch-size {self.batch} is not a multiple of --lanes {self.lanes}; "
                f"take a batch of {fits}"
            )

    @property
    def per_lane(self) -> int:
        """Samples that one lane gives to a batch."""
        return self.batch // self.lanes


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderChoice:
    """What options say of an order; None leaves a choice to the data.

    Attributes:
        batch: samples in a global batch; None is the published size, for small data less.
        lanes: of the order; None leaves them to `default_lanes`.
        block: samples of a lane that are shuffled together.
        seed: of the order.
        processes: that are to share the lanes.
    """

    batch: int | None
    lanes: int | None
    block: int
    seed: int
    processes: int = 1

    def settled(self, samples: int, published_batch: int) -> OrderConfig:
        """Fill in what is open.

        Args:
            samples: how many there are in an epoch.
            published_batch: the size that the method's authors train with.

        Raises:
            ConfigError: a batch is larger than an epoch, or is no multiple of the lanes.
        """
        batch = self.batch or default_batch(samples, published_batch)
        if batch > samples:
            raise ConfigError(
                f"--batch-size {batch} is more than the {samples} samples to train on; give at "
                f"most {samples}, or more images"
            )
        lanes = self.lanes or default_lanes(batch, self.processes)
        return OrderConfig(seed=self.seed, batch=batch, lanes=lanes, block=self.block)


class EpochOrder:
    """The order of one epoch: a pure function of (samples per shard, config, epoch)."""

    def __init__(self, counts: NDArray[np.int64], config: OrderConfig, epoch: int) -> None:
        """Permute the shards and draw where the first lane starts.

        Args:
            counts: (shards,) number of samples in each.
            config: seed and sizes.
            epoch: from 0.
        """
        self._config = config
        self._epoch = epoch
        generator = keyed_generator("shards", config.seed, epoch)
        # argsort of uniform draws, since numpy may change how it derives a permutation.
        self._shards = np.argsort(generator.random(len(counts)), kind="stable")
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[self._shards])])
        self._total = int(self._bounds[-1])
        self._start = int(generator.random() * self._total)
        self._span = self._total // config.lanes
        self._blocks: dict[int, tuple[int, NDArray[np.int64]]] = {}

    @property
    def steps(self) -> int:
        """Global batches in the epoch; fewer than one batch + LANES pairs are left out."""
        return self._span // self._config.per_lane

    def lane_block(self, lane: int, block: int) -> NDArray[np.int64]:
        """Return a shuffled block of a lane: (n, 2) int64 rows of (shard, sample within it)."""
        start = block * self._config.block
        stop = min(start + self._config.block, self._span)
        draws = keyed_generator("block", self._config.seed, self._epoch, lane, block)
        shuffled = np.argsort(draws.random(max(0, stop - start)), kind="stable")
        positions = (self._start + lane * self._span + start + shuffled) % max(1, self._total)
        slots = np.searchsorted(self._bounds, positions, side="right") - 1
        return np.stack([self._shards[slots], positions - self._bounds[slots]], axis=1)

    def lane_step(self, lane: int, step: int) -> NDArray[np.int64]:
        """Return what a lane gives to a step: (per_lane, 2) rows of (shard, sample)."""
        size = self._config.block
        positions = np.arange(step * self._config.per_lane, (step + 1) * self._config.per_lane)
        first, last = positions[0] // size, positions[-1] // size
        rows = np.concatenate([self._cached_block(lane, b) for b in range(first, last + 1)])
        selected: NDArray[np.int64] = rows[positions - first * size]
        return selected

    def _cached_block(self, lane: int, block: int) -> NDArray[np.int64]:
        """Keep each lane's latest block, since a block lasts many steps."""
        if lane not in self._blocks or self._blocks[lane][0] != block:
            self._blocks[lane] = (block, self.lane_block(lane, block))
        return self._blocks[lane][1]


@dataclasses.dataclass(frozen=True)
class StepClock:
    """Tells the epoch of a run's step; epoch e has `steps[e mod len(steps)]` steps."""

    steps: tuple[int, ...]

    def total(self, epochs: int) -> int:
        """Return the steps in a number of epochs."""
        cycles, rest = divmod(epochs, len(self.steps))
        return cycles * sum(self.steps) + sum(self.steps[:rest])

    def locate(self, step: int) -> tuple[int, int]:
        """Return (epoch, step within it) of a run's step, from 0."""
        cycles, rest = divmod(step, sum(self.steps))
        epoch = cycles * len(self.steps)
        for count in self.steps:
            if rest < count:
                break
            rest -= count
            epoch += 1
        return epoch, rest

    def fractional_epoch(self, step: int) -> float:
        """Return the number of epochs, with fractions, that have passed when a step begins."""
        epoch, within = self.locate(step)
        return epoch + within / self.steps[epoch % len(self.steps)]


def default_batch(samples: int, published: int) -> int:
    """Return the published batch size, or for small data the power of two that gives >= 8 steps.

    It is never more than the number of samples.
    """
    power = 1 << max(0, (samples // 8).bit_length() - 1)
    fits = 1 << max(0, samples.bit_length() - 1)
    return min(published, max(power, min(8, fits)))


def default_lanes(batch: int, processes: int = 1) -> int:
    """Return the largest power of two that divides the batch: at most 64, or 8 for each process.

    It must not depend on the number of loader processes, which may differ from machine to machine.
    """
    most = max(DEFAULT_LANES, 1 << (LANES_EACH * processes - 1).bit_length())
    return min(most, batch & -batch)


def lanes_of(part: int, parts: int, lanes: range) -> range:
    """Return the contiguous lanes of one rank or worker, number `part` of `parts`.

    Raises:
        ConfigError: the lanes cannot be divided equally.
    """
    if len(lanes) % parts:
        below = len(lanes) // parts * parts
        fits = f"{below} or {below + parts}" if below else f"{parts}"
        raise ConfigError(
            f"--lanes {len(lanes)} cannot be shared by {parts} processes; take {fits} lanes, and a "
            "--batch-size that is a multiple of them"
        )
    share = len(lanes) // parts
    return lanes[part * share : (part + 1) * share]


def usable_workers(wanted: int, lanes: int) -> int:
    """Return the largest number of loader workers, at most `wanted`, that divides the lanes."""
    return next((count for count in range(min(wanted, lanes), 0, -1) if lanes % count == 0), 0)
