"""Class folders are learnt from as drawn at random; what is sorted and cannot be mixed is told."""

from pathlib import Path

import numpy as np
import pytest

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.core.text_table import TextTable
from milan_pipeline.data.class_order import classes_of_a_batch, warn_of_class_order
from milan_pipeline.data.labelled import LabelledPart, LabelledTable
from milan_pipeline.data.labelled_folder import FolderPart
from milan_pipeline.data.labelled_shards import ShardPart
from milan_pipeline.data.order import EpochOrder, OrderConfig
from milan_pipeline.shards.cache import ShardFile

# ImageNet at an eightieth: ten times as many images as are shuffled together.
IMAGES, CLASSES = 16_000, 1000
ORDER = OrderConfig(seed=0, batch=1024, lanes=64, block=25)
SORTED = np.arange(IMAGES) * CLASSES // IMAGES


def table(*parts: LabelledPart) -> LabelledTable:
    return LabelledTable(parts=parts, kind="class", classes=(), source="")


def folder(labels: np.ndarray = SORTED) -> LabelledTable:
    names = TextTable(f"{label:04d}/{row:06d}.jpg" for row, label in enumerate(labels))
    return table(FolderPart(Path("/tree"), names, TextTable([]), labels))


def shard(labels: np.ndarray) -> ShardPart:
    rows = np.zeros(len(labels), dtype=[("key", "S6"), ("label", "<i8")])
    return ShardPart(ShardFile("x.tar", 0, ""), rows, labels)


def classes_of(learnt: LabelledTable, steps: int) -> set[int]:
    """The classes of the first steps of an epoch."""
    order = EpochOrder(learnt.counts(0), ORDER, 0)
    taken = [order.lane_step(lane, step) for lane in range(ORDER.lanes) for step in range(steps)]
    return {int(learnt.parts[part].labels[row]) for part, row in np.concatenate(taken)}


def test_a_batch_of_class_folders_has_the_classes_of_a_random_draw(
    caplog: pytest.LogCaptureFixture,
) -> None:
    as_listed = folder()
    learnt = as_listed.shuffled(0)
    drawn = CLASSES * (1 - (1 - 1 / CLASSES) ** ORDER.batch)
    found, expected = classes_of_a_batch(learnt, ORDER)
    assert expected == pytest.approx(drawn)
    assert found == pytest.approx(drawn, rel=0.05)
    assert classes_of_a_batch(as_listed, ORDER)[0] < 0.5 * drawn
    assert len(classes_of(learnt, 15)) == CLASSES
    warn_of_class_order(learnt, ORDER, "tree")
    assert caplog.messages == []
    assert len(classes_of(as_listed, 6)) < 0.6 * CLASSES  # so it was


def test_the_folders_order_belongs_to_the_seed_and_keeps_files_and_labels_together() -> None:
    labels = np.arange(40) // 4
    one, same, other = (folder(labels).shuffled(seed).parts[0] for seed in (3, 3, 4))
    keys = [[part.key(row) for row in range(40)] for part in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]
    assert sorted(keys[0]) == sorted(keys[2])
    assert [int(key.split("/")[0]) for key in keys[0]] == one.labels.tolist()


def test_shards_are_read_as_they_lie() -> None:
    part = shard(np.arange(9))
    assert table(part).shuffled(1).parts == [part]


def test_what_stays_sorted_is_told_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    mixed = SORTED[keyed_generator("test").permutation(IMAGES)]
    for learnt in (table(shard(mixed)), table(shard(mixed[:1024] % 3))):
        warn_of_class_order(learnt, ORDER, "foreign")
    assert caplog.messages == []
    warn_of_class_order(table(*map(shard, np.split(SORTED, 100))), ORDER, "foreign")
    (said,) = caplog.messages
    assert said.startswith("--train foreign is sorted by class: the first batch of 1024")
    assert "drawn at random has 641" in said
    assert "pack-images" in said
