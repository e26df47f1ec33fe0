"""Views for the page are those that the teacher saw, or an error says why not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from milan_pipeline.data.viewed_pairs import iterate_pairs
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.report.target_rows import TargetRows, ViewSource, read_target_rows


def changed(rows: TargetRows, field: str, value: object) -> TargetRows:
    records = rows.records.copy()
    records[field][0] = value
    return dataclasses.replace(rows, records=records)


@pytest.fixture
def rows(target_shards: Path) -> TargetRows:
    return read_target_rows(str(target_shards), 48, 0)


def test_views_are_those_of_training(
    rows: TargetRows, image_shards: Path, target_shards: Path
) -> None:
    pairs = iterate_pairs(images=str(image_shards), targets=str(target_shards), views=2)
    wanted = {(pair.view, pair.key): pair.pixels_CSS.permute(1, 2, 0).numpy() for pair in pairs}
    views = list(ViewSource(str(image_shards)).views(rows, 32))
    assert len(views) == len(wanted) == 48
    for view, number, key in zip(views, rows.view, rows.key, strict=True):
        assert np.array_equal(view, wanted[number, key])


def test_what_the_teacher_did_not_see_is_refused(rows: TargetRows, image_shards: Path) -> None:
    source = ViewSource(str(image_shards))
    with pytest.raises(MismatchError, match="made from other image bytes"):
        list(source.views(changed(rows, "digest", 1), 32))
    with pytest.raises(DataError, match="is not inside the image"):
        list(source.views(changed(rows, "box", [0, 0, 1e9, 1]), 32))
    with pytest.raises(MissingDataError, match=r"has no image 'x' in images-"):
        list(source.views(dataclasses.replace(rows, key=["x", *rows.key[1:]]), 32))
