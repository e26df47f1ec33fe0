"""The stream gives the same batches for any number of loader processes, and fails by name."""

import contextlib
import gc
import multiprocessing
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest
import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.data.batching import join
from milan_pipeline.data.order import lanes_of, usable_workers
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import SampleSource, batches, step_clock
from milan_pipeline.errors import DataError
from milan_pipeline.models.student import in_grid_order
from milan_pipeline.pretraining.examples import Batch, ExampleConfig, ToExamples
from milan_pipeline.pretraining.masking import draw_mask
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from tests.support.fitted import write_fitted
from tests.support.pairs import open_data, stream, tensors_of

# torch advises against more loader processes than cores; here they are few samples' worth.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def data(image_shards, target_shards):
    return open_data(image_shards, target_shards)


def require_equal(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys == right.keys
        assert all(map(torch.equal, tensors_of(left), tensors_of(right)))


@pytest.fixture(scope="module")
def four_epochs(data):
    """All batches of four epochs (two of each view), read without loader processes."""
    return list(stream(data, range(8)))


def test_each_epoch_shows_every_sample_once(data, four_epochs):
    assert step_clock(data.samples, data.order).steps == (2, 2)
    for epoch in range(4):
        keys = four_epochs[2 * epoch].keys + four_epochs[2 * epoch + 1].keys
        assert len(keys) == len(set(keys)) == 24


def test_epochs_alternate_between_the_views(data, four_epochs):
    """The codes of a sample are those of view `epoch % 2`, read straight from the target shards."""
    stored = {
        (view, key.decode()): data.teachers[0].layout.from_bytes(
            read_range(data.pairs.files(view, number)[1][0].url, *row.tolist()[:2])
        )
        for view in range(2)
        for number in range(len(data.pairs.counts(view)))
        for shard in [data.pairs.joined(view, number)]
        for key, row in zip(shard.keys, shard.target_rows[0], strict=True)
    }
    for step, batch in enumerate(four_epochs):
        codes_BNC = in_grid_order(batch.codes[0], batch.kept_BK, batch.masked_BM)
        for key, codes_NC in zip(batch.keys, codes_BNC, strict=True):
            expected = stored[step // 2 % 2, key]["codes"]
            assert torch.equal(codes_NC, torch.from_numpy(expected.copy()))
    assert all((stored[0, key]["box"] != stored[1, key]["box"]).any() for _, key in stored)


def read_range(path, offset, length):
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(length)


def test_batches_do_not_depend_on_who_shares_a_member(
    image_shards, lone_target_shards, four_epochs
):
    require_equal(list(stream(open_data(image_shards, lone_target_shards), range(8))), four_epochs)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_do_not_depend_on_the_number_of_workers(data, four_epochs, workers):
    require_equal(list(stream(data, range(8), workers=workers)), four_epochs)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_at_a_step_goes_on_with_the_same_batches(data, four_epochs, workers):
    for first in (1, 2, 5) if workers == 0 else (3,):
        require_equal(list(stream(data, range(first, 8), workers=workers)), four_epochs[first:])


@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_parts_make_up_the_global_batches(data, four_epochs, world):
    ranks = [stream(data, range(8), world=World(rank, world)) for rank in range(world)]
    require_equal([join(list(parts)) for parts in zip(*ranks, strict=True)], four_epochs)


# ---- every division of the work, in this process


def part_keys(data, steps, *, rank, world, worker, workers):
    """The keys that one loader worker of one rank emits."""
    lanes = lanes_of(worker, max(1, workers), lanes_of(rank, world, range(data.order.lanes)))
    source = SampleSource(PairSamples(data.pairs), data.order, lanes=lanes, steps=steps)
    keys = [(sample["__key__"], sample["epoch"]) for sample in source]
    per_step = len(lanes) * data.order.per_lane
    return [keys[at : at + per_step] for at in range(0, len(keys), per_step)]


def global_keys(data, steps, *, world=1, workers=0):
    count = usable_workers(workers, data.order.lanes // world)
    parts = [
        part_keys(data, steps, rank=rank, world=world, worker=worker, workers=count)
        for rank in range(world)
        for worker in range(max(1, count))
    ]
    assert {len(part) for part in parts} == {len(steps)}  # equal steps for each
    return [[key for part in step for key in part] for step in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def eight_lanes(image_shards, target_shards):
    return open_data(image_shards, target_shards, batch=8, lanes=8)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_global_batches_are_the_same_for_every_world_and_worker_count(eight_lanes, world, workers):
    steps = range(12)  # two epochs of each view
    whole = [batch.keys for batch in stream(eight_lanes, steps)]
    divided = global_keys(eight_lanes, steps, world=world, workers=workers)
    assert [[key for key, _ in batch] for batch in divided] == whole
    for epoch in range(4):
        shown = [pair for batch in divided for pair in batch if pair[1] == epoch]
        assert len(set(shown)) == len(shown) == 24


def test_a_resume_at_every_step_gives_the_remaining_batches(eight_lanes):
    whole = global_keys(eight_lanes, range(9))
    for first in range(10):
        for world, workers in ((1, 0), (2, 2)):
            steps = range(first, 9)
            rest = global_keys(eight_lanes, steps, world=world, workers=workers)
            assert rest == whole[first:]


# ---- targets of a fitted codec


@pytest.fixture(scope="module", params=["joint:bytes=3", "joint:bytes=2"])
def fitted(request, tmp_path_factory):
    """A fitted codec, a block of such targets, and the folders of images and target shards."""
    return write_fitted(tmp_path_factory.mktemp("fitted"), request.param)


@pytest.mark.parametrize("workers", [0, 2])
def test_targets_of_a_fitted_codec_come_as_they_are_stored(fitted, workers):
    codec, block, folders = fitted
    data = open_data(*folders, batch=4, lanes=4)
    assert data.teachers[0].layout.is_shared
    stored, priors = torch.from_numpy(block.codes), decode_prior(block.prior)
    config = ExampleConfig(
        image_size=16, patch_size=8, kept=2, mask_seed=0, layouts=(data.teachers[0].layout,)
    )
    steps = range(step_clock(data.samples, data.order).steps[0])
    seen = list(
        batches(
            PairSamples(data.pairs), data.order, ToExamples(config), steps=steps, workers=workers
        )
    )
    assert len(seen) == len(steps) >= 2
    for batch in seen:
        for key, codes_1C, kept_K in zip(batch.keys, batch.codes[0], batch.kept_BK, strict=True):
            row = block.key.index(key)
            assert torch.equal(codes_1C, stored[row])
            drawn, _ = draw_mask("semantic", priors[row], 2, grid=(2, 2), seed=0, epoch=0, key=key)
            assert kept_K.tolist() == drawn.tolist()
        decoded = data.targets()[""].decode(batch.codes[0], None)
        assert torch.equal(decoded, codec.decode(batch.codes[0], None))


# ---- through a cache


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_does_not_change_the_batches(data, four_epochs, tmp_path, workers):
    cache = CacheConfig(folder=tmp_path, max_bytes=100_000_000)
    for _ in range(2):
        require_equal(list(stream(data, range(8), workers=workers, cache=cache)), four_epochs)
    assert len(list(tmp_path.glob("*.piece"))) == 9  # of 3 image shards and 6 target shards


# ---- what is left behind


@pytest.mark.parametrize("cached", [pytest.param(False, marks=pytest.mark.slow), True])
def test_memory_and_open_files_stay_flat_over_epochs(data, tmp_path, cached):
    """What later epochs leave allocated is no more than what the first have."""
    cache = CacheConfig(folder=tmp_path, max_bytes=100_000_000) if cached else None
    held, files = [], []
    tracemalloc.start()
    try:
        with contextlib.closing(stream(data, range(44), cache=cache)) as running:
            for step, _ in enumerate(running):
                if step in (11, 27, 43):
                    files.append(open_files())
                    held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[2] - held[1] < 20_000  # a batch is more
    assert files[2] <= files[0]


def open_files():
    gc.collect()  # what other tests left in cycles
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_left_running_or_open(data, workers):
    list(stream(data, range(1), workers=workers))  # what is opened once and for all
    before = open_files()
    list(stream(data, range(2), workers=workers))
    with contextlib.closing(stream(data, range(8), workers=workers)) as abandoned:
        next(abandoned)
    assert not multiprocessing.active_children()
    assert open_files() <= before


# ---- damage


@pytest.fixture(
    params=[
        ("flip", "target_shards"), ("flip", "lone_target_shards"),
        ("cut", "target_shards"), ("cut", "lone_target_shards"),
    ],
    ids=" ".join,
)  # fmt: skip
def damaged(image_shards, tmp_path, request):
    """Target shards with one bit flipped in one record, or cut off there; and the tar's name."""
    damage, packed = request.param
    folder = tmp_path / "targets"
    shutil.copytree(request.getfixturevalue(packed), folder)
    manifest = load_manifest(str(folder), kind="targets")
    shard = manifest.shards[1]
    row = load_index(manifest, shard)[3]
    path = folder / shard.name
    data = bytearray(path.read_bytes())
    last = int(row["offset"] + row["length"]) - 1
    data[last] ^= 1
    path.write_bytes(data if damage == "flip" else data[:last])
    return open_data(image_shards, folder), path.name


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_is_an_error_that_names_the_tar(damaged, workers):
    data, name = damaged
    with pytest.raises(DataError) as error:
        list(stream(data, range(2), workers=workers))
    assert not multiprocessing.active_children()
    assert name in str(error.value)
    assert "damaged" in str(error.value)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_stop_signals_do_not_end_the_workers(data, four_epochs):
    """A scheduler signals every process of a job; the training process alone decides."""
    found: list[Batch] = []
    for batch in stream(data, range(8), workers=2):
        if not found:
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            for name in ("-TERM", "-USR1"):
                subprocess.run(["kill", name, *(str(worker.pid) for worker in workers)], check=True)
        found.append(batch)
    require_equal(found, four_epochs)
