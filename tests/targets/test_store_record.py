"""The record of a store: found by the identity, whichever stage left which one."""

from pathlib import Path

import pytest

from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.targets.store_record import read_store_record, stage_of

EXTRACTED = {"codec": {"name": "int8"}}
TRANSCODED = EXTRACTED | {"transcoded_from": {"name": "float16"}}
EXTENT = {"views": 2, "shards": {"a.tar": "1", "b.tar": "2"}, "samples": [3, 4]}


def write(folder: Path, stage: str, **more: object) -> None:
    document = {
        "state": "done", "content": {}, "inputs": {}, "config": {}, "extent": EXTENT,
        "started": "2020-01-01T00:00:00Z", **more,
    }  # fmt: skip
    (folder / f"{stage}.json").write_bytes(record_bytes(document))


def test_each_identity_has_its_record(tmp_path: Path) -> None:
    for identity, stage in ((EXTRACTED, "extract-targets"), (TRANSCODED, "transcode")):
        with pytest.raises(
            MissingDataError, match=rf"{stage}\.json does not .*; run {stage} again"
        ):
            read_store_record(str(tmp_path), identity)
        assert stage_of(identity) == stage
    write(tmp_path, "extract-targets", config={"teacher": "a"})
    write(tmp_path, "transcode", config={}, source={"extraction": {"teacher": "b"}})
    extracted, transcoded = (
        read_store_record(str(tmp_path), identity) for identity in (EXTRACTED, TRANSCODED)
    )
    assert (extracted.is_transcoded, transcoded.is_transcoded) == (False, True)
    assert (extracted.extraction, transcoded.extraction) == ({"teacher": "a"}, {"teacher": "b"})
    assert [unit.path for unit in transcoded.units()] == [
        "view-00/a", "view-00/b", "view-01/a", "view-01/b",
    ]  # fmt: skip
    assert [unit.shard.samples for unit in transcoded.units(1)] == [3, 4]
