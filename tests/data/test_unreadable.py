"""What stands in for an unreadable image does not depend on who reads it, or from where on."""

import functools
import itertools
import shutil

import pytest
import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.data.batching import join
from milan_pipeline.data.image_table import ImageTable
from milan_pipeline.data.order import OrderChoice, OrderConfig
from milan_pipeline.data.stream import SampleSource, batches
from milan_pipeline.data.unreadable import RunLedger, replacement_places
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.pretraining.pixel_data import ToPixelExamples, open_pixel_data
from milan_pipeline.shards.columns import read_image_columns
from tests.support.cli import run_cli
from tests.support.labelled import spoil
from tests.support.pairs import tensors_of
from tests.support.pictures import write_picture

# torch advises against more loader processes than cores; here they are few samples' worth.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

BAD = ("003", "004", "011")
STEPS = 9
ORDER = OrderConfig(seed=0, batch=8, lanes=4, block=5)


def packed(root, bad):
    for number in range(24):
        path = root / "pictures" / f"{number:03d}.jpg"
        write_picture(path, number)
        if path.stem in bad:
            spoil(path)
    run_cli("pack-images", root / "pictures", root / "shards", "--samples-per-shard", 10)
    return ImageTable(read_image_columns(str(root / "shards")))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three shards of 24 pictures, of which three are cut off."""
    return packed(tmp_path_factory.mktemp("some"), BAD)


def test_images_whose_last_index_is_lost_are_refused_at_the_start(table, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(table.shards.head.folder, folder)
    (folder / "images-000002.index.npy").unlink()
    order = OrderChoice(batch=8, lanes=None, block=4096, seed=0)
    with pytest.raises(MissingDataError, match=r"images-000002\.index\.npy does not exist; copy"):
        open_pixel_data(str(folder), views=None, min_scale=None, order=order)


@pytest.fixture
def ledger(tmp_path):
    """Of a run that puts up with those three."""
    return RunLedger(tmp_path, "train", images=24, fraction=0.2)


def stream(table, ledger, steps=range(STEPS), workers=0, **share):
    examples = ToPixelExamples(image_size=32, patch_size=8, kept=4, seed=0)
    return batches(table, ORDER, examples, steps=steps, workers=workers, ledger=ledger, **share)


def require_equal(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys == right.keys
        assert all(map(torch.equal, tensors_of(left), tensors_of(right)))


@pytest.fixture(scope="module")
def undivided(table, tmp_path_factory):
    """All batches of three epochs, read by one process."""
    ledger = RunLedger(tmp_path_factory.mktemp("run"), "train", images=24, fraction=0.2)
    return list(stream(table, ledger))


def test_batches_stay_whole_and_have_nothing_else_changed(undivided, table):
    source = SampleSource(table, ORDER, lanes=range(4), steps=range(STEPS))
    as_ordered = [sample["__key__"] for sample in source]
    assert [len(batch.keys) for batch in undivided] == [8] * STEPS
    shown = itertools.chain(*(batch.keys for batch in undivided))
    changed = [pair for pair in zip(as_ordered, shown, strict=True) if pair[0] != pair[1]]
    assert {ours for ours, _ in changed} == set(BAD)
    assert not {theirs for _, theirs in changed} & set(BAD)
    assert len({theirs for _, theirs in changed}) > len(BAD)  # others in each epoch


@pytest.mark.parametrize("workers", [2, 4])
def test_batches_do_not_depend_on_the_number_of_workers(table, ledger, undivided, workers):
    require_equal(stream(table, ledger, workers=workers), undivided)


def test_the_ranks_parts_make_up_the_global_batches(table, ledger, undivided):
    ranks = [stream(table, ledger, world=World(rank, 2)) for rank in range(2)]
    require_equal([join(list(parts)) for parts in zip(*ranks, strict=True)], undivided)


def test_a_resume_goes_on_with_the_same_batches(table, ledger, undivided):
    require_equal(stream(table, ledger, range(4, STEPS)), undivided[4:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sound_table_gives_what_it_gave_without_a_ledger(tmp_path, ledger, workers):
    sound = packed(tmp_path, ())
    require_equal(stream(sound, ledger, workers=workers), list(stream(sound, None)))
    assert ledger.count == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_every_unreadable_image_is_told_of(table, ledger, workers):
    list(stream(table, ledger, workers=workers))
    assert ledger.count == len(BAD)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_end_the_stream(table, tmp_path, workers):
    ledger = RunLedger(tmp_path, "train", images=24, fraction=0.1)
    with pytest.raises(DataError, match=r"3 of 24 images are unreadable, more than --max-bad-f"):
        list(stream(table, ledger, workers=workers))


def test_images_none_of_which_can_be_decoded_end_the_stream(tmp_path, ledger):
    nothing = packed(tmp_path, {f"{number:03d}" for number in range(24)})
    ledger = RunLedger(tmp_path, "train", images=24, fraction=1)
    with pytest.raises(DataError, match="none of the images can be decoded; give others"):
        list(stream(nothing, ledger))


def test_replacements_are_every_sample_once_from_one_that_is_drawn(table):
    drawn = functools.partial(replacement_places, table, key="a", seed=0)
    places = list(drawn(5))
    assert len({(place.shard, place.row) for place in places}) == len(places) == 24
    assert all((place.epoch, place.view) == (5, 0) for place in places)
    assert places == list(drawn(5))
    firsts = {next(drawn(epoch))[2:] for epoch in range(50)}
    assert len(firsts) > 15
    assert {next(replacement_places(table, 5, "a", seed))[2:] for seed in range(50)} != firsts
