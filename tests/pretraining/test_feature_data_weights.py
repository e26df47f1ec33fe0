"""A shard is joined when it is first read: the student is the one that a whole join would give.

Weights differ between processors in their last bits, so no hash of them is recorded. Here the plain
join of all samples, read from the tars alone, trains beside ours in the same process. Batches have
recorded hashes in `tests/data/test_stream_recorded.py`.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
import xxhash

from milan_pipeline.data.stream import batches
from milan_pipeline.pretraining.examples import ToExamples
from milan_pipeline.pretraining.task import Pretraining
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.random_access import IMAGE_MEMBER
from milan_pipeline.targets.shard_records import TARGET_EXTENSION
from milan_pipeline.training.meter import named
from tests.support.runs import RECIPE, open_data, student_for

STEPS = range(7)
"""An epoch has three: one epoch of each view, and the start of another."""


class PlainJoin:
    """All pairs in memory, by view and shard, as the images lie in their tars."""

    cycle = 2

    def __init__(self, images: Path, targets: Path) -> None:
        listed = load_manifest(str(targets), kind="targets")
        of_unit = {(s.details["view"], s.details["source"]): s.name for s in listed.shards}
        self.pairs: list[list[list[tuple[str, bytes, bytes]]]] = []
        for view in range(self.cycle):
            self.pairs.append([])
            for shard in load_manifest(str(images), kind="images").shards:
                records = _records(targets / of_unit[view, shard.stem])
                names = _members(images / shard.name)
                rows = [(n.partition(".")[0], d) for n, d in names if not n.endswith(".cls")]
                self.pairs[view].append([(key, data, records[key]) for key, data in rows])

    def counts(self, view: int):
        return np.array([len(rows) for rows in self.pairs[view]])

    def read(self, places, cache):
        del cache
        for place in places:
            key, image, record = self.pairs[place.view][place.shard][place.row]
            yield {
                "__key__": key,
                "__url__": "",
                "epoch": place.epoch,
                IMAGE_MEMBER: image,
                "digest": xxhash.xxh3_64_intdigest(image),
                TARGET_EXTENSION: record,
            }


def _members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        streams = [(member.name, tar.extractfile(member)) for member in tar]
        return [(name, stream.read()) for name, stream in streams if stream is not None]


def _records(path: Path) -> dict[str, bytes]:
    """Read a target shard whose samples share members."""
    found = dict(_members(path))
    return {
        key: record.tobytes()
        for name, data in found.items()
        if name.endswith(".keys.json")
        for key, record in zip(
            json.loads(data),
            np.load(io.BytesIO(found[name.replace(".keys.json", ".targets.npy")])),
            strict=True,
        )
    }


def trained(data, table) -> dict[str, torch.Tensor]:
    """Train a tiny student on a table's samples."""
    student = student_for(data)
    task = Pretraining(student, data.targets(), RECIPE)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    examples = ToExamples(data.examples(student, mask_ratio=0.75))
    for batch in batches(table, data.order, examples, steps=STEPS, workers=0):
        named(task.loss(student, batch, slice(None), 0))["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
    state: dict[str, torch.Tensor] = student.state_dict()
    return state


def test_weights_are_those_of_a_plain_join(image_shards: Path, target_shards: Path) -> None:
    data = open_data(image_shards, target_shards)
    ours = trained(data, data.samples)
    plain = trained(data, PlainJoin(image_shards, target_shards))
    first = student_for(data).state_dict()
    assert any(not torch.equal(first[name], ours[name]) for name in ours)
    for name, value in ours.items():
        assert torch.equal(value, plain[name]), name
