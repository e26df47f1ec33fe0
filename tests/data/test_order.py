"""Which sample when: each pair at most once an epoch, whatever divides the work."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.data.order import (
    EpochOrder,
    OrderChoice,
    OrderConfig,
    StepClock,
    default_batch,
    default_lanes,
    lanes_of,
    usable_workers,
)
from milan_pipeline.errors import ConfigError

COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=6).map(np.array)
EPOCHS = st.integers(0, 3)


@st.composite
def configs(draw, lanes=(1, 2, 3, 4, 8)):
    lanes = draw(st.sampled_from(lanes))
    return OrderConfig(
        seed=draw(st.integers(0, 5)),
        batch=lanes * draw(st.integers(1, 3)),
        lanes=lanes,
        block=draw(st.integers(1, 20)),
    )


def example(*, seed=0, batch=8, lanes=4, block=5, counts=(10, 0, 7, 16), epoch=0):
    config = OrderConfig(seed=seed, batch=batch, lanes=lanes, block=block)
    return EpochOrder(np.array(counts), config, epoch), config


def share_of_step(order, lanes, step):
    """What the process that has these lanes puts into a step."""
    return [tuple(row) for lane in lanes for row in order.lane_step(lane, step).tolist()]


def epoch_batches(counts, config, epoch, *, world=1, workers=0, steps=None):
    """Put the global batches together from every rank's every worker's share, with no state."""
    whole = EpochOrder(counts, config, epoch)
    owners = []
    for rank in range(world):
        of_rank = lanes_of(rank, world, range(config.lanes))
        parts = max(1, usable_workers(workers, len(of_rank)))
        # Each process has an order of its own, as it does in a real run.
        owners += [
            (EpochOrder(counts, config, epoch), lanes_of(worker, parts, of_rank))
            for worker in range(parts)
        ]
    return [
        [row for order, lanes in owners for row in share_of_step(order, lanes, step)]
        for step in (range(whole.steps) if steps is None else steps)
    ]


@settings(deadline=None, derandomize=True)
@given(counts=COUNTS, config=configs(), epoch=EPOCHS)
def test_every_pair_comes_at_most_once_and_few_are_left_out(counts, config, epoch):
    batches = epoch_batches(counts, config, epoch)
    seen = [row for batch in batches for row in batch]
    pairs = {(shard, pair) for shard, count in enumerate(counts) for pair in range(count)}
    assert len(seen) == len(set(seen))
    assert set(seen) <= pairs
    assert all(len(batch) == config.batch for batch in batches)
    assert len(pairs) - len(seen) < config.batch + config.lanes


@settings(deadline=None, derandomize=True, max_examples=25)
@given(counts=COUNTS.filter(lambda counts: counts.sum() >= 9), config=configs())
def test_other_pairs_are_left_out_each_epoch(counts, config):
    config = dataclasses.replace(config, batch=config.lanes)
    epochs = [epoch_batches(counts, config, epoch) for epoch in range(60)]
    seen = {row for batches in epochs for batch in batches for row in batch}
    assert len(seen) == counts.sum()


def test_even_of_a_single_shard_other_pairs_are_left_out():
    left = set()
    for epoch in range(8):
        order, _ = example(counts=[11], batch=4, lanes=4, block=2, epoch=epoch)
        seen = {row for step in range(order.steps) for row in share_of_step(order, range(4), step)}
        left.add(frozenset({(0, pair) for pair in range(11)} - seen))
    assert len(left) > 3


@settings(deadline=None, derandomize=True, max_examples=40)
@given(counts=COUNTS, config=configs(lanes=(8,)), epoch=EPOCHS)
def test_global_batches_do_not_depend_on_world_size_or_workers(counts, config, epoch):
    alone = epoch_batches(counts, config, epoch)
    for world in (1, 2, 4, 8):
        for workers in range(4):
            assert epoch_batches(counts, config, epoch, world=world, workers=workers) == alone


@settings(deadline=None, derandomize=True)
@given(counts=COUNTS, config=configs(), epoch=EPOCHS)
def test_a_resume_at_any_step_goes_on_with_the_same_batches(counts, config, epoch):
    whole = epoch_batches(counts, config, epoch)
    for step in range(len(whole)):
        steps = range(step, len(whole))
        assert epoch_batches(counts, config, epoch, steps=steps) == whole[step:]


@settings(deadline=None, derandomize=True)
@given(counts=COUNTS, config=configs(), epoch=EPOCHS)
def test_steps_of_a_lane_are_slices_of_its_blocks(counts, config, epoch):
    order = EpochOrder(counts, config, epoch)
    span = counts.sum() // config.lanes
    for lane in range(config.lanes):
        blocks = [order.lane_block(lane, block) for block in range(-(-span // config.block))]
        rows = np.concatenate([np.empty((0, 2), np.int64), *blocks])
        assert len(rows) == span
        for step in range(order.steps):
            here = slice(step * config.per_lane, (step + 1) * config.per_lane)
            np.testing.assert_array_equal(order.lane_step(lane, step), rows[here])


def test_a_block_holds_neighbours_in_another_order():
    order, _ = example(counts=[1000], lanes=2, batch=2, block=100)
    pairs = order.lane_block(1, 2)[:, 1].tolist()
    ends = [pair for pair in pairs if (pair + 1) % 1000 not in pairs]
    assert len(set(pairs)) == 100
    assert len(ends) == 1
    assert sum(after - before == 1 for before, after in itertools.pairwise(pairs)) < 20


def test_shards_without_pairs_are_passed_over():
    order, _ = example(counts=[0, 3, 0, 0, 5, 0], batch=4, lanes=4)
    rows = [row for step in range(order.steps) for row in share_of_step(order, range(4), step)]
    assert sorted(rows) == [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1), (4, 2), (4, 3), (4, 4)]


@pytest.mark.parametrize("counts", [[], [0], [0, 0], [3]])
def test_fewer_pairs_than_a_batch_give_no_step(counts):
    order, _ = example(counts=np.array(counts, dtype=np.int64), batch=4, lanes=4)
    assert order.steps == 0
    assert order.lane_block(0, 0).shape == (0, 2)


def test_the_order_depends_on_seed_and_epoch_alone():
    def first(**changes):
        order, config = example(**changes)
        return share_of_step(order, range(config.lanes), 0)

    assert first() == first()
    assert first() != first(seed=1)
    assert first() != first(epoch=1)


def test_the_order_is_the_same_for_good():
    """A run that is resumed by a later version must go on with the same batches."""
    order, config = example()
    assert share_of_step(order, range(config.lanes), 1) == [
        (0, 4), (0, 2), (3, 1), (3, 4), (3, 10), (3, 12), (2, 0), (2, 4)
    ]  # fmt: skip


# ---- sizes that do not fit


@pytest.mark.parametrize(
    ("batch", "lanes", "fits"), [(10, 4, "8 or 12"), (3, 8, "a batch of 8"), (9, 2, "8 or 10")]
)
def test_a_batch_that_lanes_do_not_divide_is_refused_with_sizes_that_fit(batch, lanes, fits):
    with pytest.raises(ConfigError, match=f"--batch-size {batch} .* --lanes {lanes}; .*{fits}"):
        OrderConfig(seed=0, batch=batch, lanes=lanes, block=1)


@pytest.mark.parametrize("wrong", ["batch", "lanes", "block"])
def test_sizes_below_one_are_refused(wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        OrderConfig(**{"seed": 0, "batch": 4, "lanes": 4, "block": 4, wrong: 0})


@pytest.mark.parametrize(("lanes", "world", "fits"), [(6, 4, "4 or 8"), (2, 8, "take 8 lanes")])
def test_lanes_that_processes_cannot_share_are_refused_with_sizes_that_fit(lanes, world, fits):
    with pytest.raises(ConfigError, match=f"--lanes {lanes} .* {world} processes; .*{fits}"):
        lanes_of(0, world, range(lanes))


def test_workers_are_fewer_where_they_cannot_share_the_lanes():
    assert [usable_workers(3, lanes) for lanes in (1, 2, 4, 6, 8)] == [1, 2, 2, 3, 2]
    assert usable_workers(0, 8) == 0


# ---- defaults


def test_default_sizes_are_sensible_for_every_number_of_pairs():
    for pairs in range(1, 20001):
        batch = default_batch(pairs, 4096)
        lanes = default_lanes(batch)
        config = OrderConfig(seed=0, batch=batch, lanes=lanes, block=4096)
        steps = pairs // config.batch
        assert steps >= 1
        assert steps >= 8 or batch <= 8
        assert batch == 4096 or steps <= 16 or pairs < 8
        assert 1 <= lanes <= 64


def test_published_batch_is_the_largest_default():
    assert default_batch(1_281_167, 4096) == 4096
    assert default_lanes(4096) == 64
    assert default_lanes(12) == 4


@pytest.mark.parametrize(
    ("processes", "lanes"), [(1, 64), (8, 64), (9, 128), (16, 128), (64, 512), (1024, 4096)]
)
def test_every_process_has_lanes_for_eight_loaders_as_far_as_the_batch_goes(processes, lanes):
    assert default_lanes(4096, processes) == lanes
    choice = OrderChoice(batch=4096, lanes=None, block=4096, seed=0, processes=processes)
    assert choice.settled(10_000, 4096).lanes == lanes
    # A run that has begun keeps what it has recorded, whoever goes on with it.
    recorded = dataclasses.replace(choice, lanes=64)
    assert recorded.settled(10_000, 4096).lanes == 64


# ---- steps and epochs


@settings(deadline=None, derandomize=True)
@given(steps=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple))
def test_the_clock_counts_epochs_of_unequal_views(steps):
    clock = StepClock(steps)
    passed = [(e, s) for e in range(9) for s in range(steps[e % len(steps)])]
    assert [clock.locate(step) for step in range(len(passed))] == passed
    assert clock.total(9) == len(passed)
    for step, (epoch, within) in enumerate(passed):
        assert clock.fractional_epoch(step) == epoch + within / steps[epoch % len(steps)]


def test_the_clock_by_hand():
    clock = StepClock((3, 2))
    assert clock.total(3) == 8
    assert [clock.locate(step) for step in (0, 2, 3, 4, 5, 7, 8)] == [
        (0, 0), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2), (3, 0)
    ]  # fmt: skip
    assert clock.fractional_epoch(4) == 1.5
