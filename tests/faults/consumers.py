"""What reaches those who read: batches of a training run, packed targets, weights; as plain bytes.

Equal results are equal bit for bit.
"""

from pathlib import Path
from typing import Any

import torch

from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.pair_table import OnMissing
from milan_pipeline.data.stream import batches, step_clock
from milan_pipeline.encoders.readers import read_run_encoder
from milan_pipeline.pretraining.examples import ExampleConfig, ToExamples
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.manifest import Shard, load_manifest
from milan_pipeline.shards.sequential import index_shard, iterate_shard, read_rows
from milan_pipeline.targets.codec_files import read_shards_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.shard_records import layout_of, write_target_shard
from milan_pipeline.targets.store_record import finished_units, read_store_record
from milan_pipeline.targets.units import target_shard_name
from milan_pipeline.training.checkpoint_io import load_checkpoint
from tests.support.runs import model_and_optimiser

BATCH, LANES = 8, 4


def trained_on(images: Path, targets: Path, on_missing: OnMissing = "error") -> list[Any]:
    """Return all that an epoch of each view shows to a student, step by step."""
    order = OrderChoice(batch=BATCH, lanes=LANES, block=5, seed=0)
    data = open_run_data(
        str(images), {"": str(targets)}, views=None, on_missing=on_missing, order=order
    )
    (teacher,) = data.teachers
    config = ExampleConfig(
        image_size=32, patch_size=8, kept=4, mask_seed=0, layouts=(teacher.layout,)
    )
    read_shards_codec(str(targets), teacher.identity)
    steps = range(sum(step_clock(data.samples, data.order).steps))
    stream = batches(data.samples, data.order, ToExamples(config), steps=steps, workers=0)
    return [
        (each.keys, [_bytes(tensor) for tensor in (*each[:3], *each.codes, *each.scales)])
        for each in stream
    ]


def packed(store: Path, scratch: Path, only: str = "") -> list[Shard]:
    """Pack a store, or one unit of it; the hashes of what comes out stand for its bytes."""
    identity = read_identity(str(store))
    record = read_store_record(str(store), identity)
    units = finished_units(str(store), identity, record, views=None, allow_unfinished=False)
    return [
        write_target_shard(
            str(scratch), target_shard_name(unit), store=str(store), unit=unit, mark=mark,
            layout=layout_of(identity), identity_hash=content_hash(identity),
        )
        for unit, mark in units
        if only in unit.path
    ]  # fmt: skip


def arrays_of(store: Path, only: str) -> dict[str, bytes]:
    """Return every array of a unit, those that packing leaves out, too."""
    identity = read_identity(str(store))
    record = read_store_record(str(store), identity)
    units = finished_units(str(store), identity, record, views=None, allow_unfinished=False)
    (opened,) = [open_unit(str(store), unit, mark) for unit, mark in units if unit.path == only]
    return {name: opened.values(name).tobytes() for name in opened.names}


def listed(folder: Path, kind: str, number: int = 0) -> list[Any]:
    """Read a listed shard from end to end."""
    manifest = load_manifest(str(folder), kind=kind)
    return list(iterate_shard(manifest, manifest.shards[number]))


def indexed(tar: Path, scratch: Path) -> tuple[int, str]:
    """Index a tar as a foreign one; its index's hash stands for keys, places and digests."""
    shard, skipped = index_shard(str(tar), str(scratch), tar.name)
    return shard.samples + len(skipped), shard.index_sha256


def extracted_from(tar: Path, table: Any) -> list[bytes]:
    """Read a shard as extraction does."""
    return [data for _, _, data in read_rows([(str(tar), table)], threads=0)]


def resumed(checkpoint: Path) -> dict[str, bytes]:
    """Load a checkpoint into a fresh model and optimiser; their whole state."""
    model, optimiser = model_and_optimiser(seed=1)
    load_checkpoint(checkpoint, model, optimiser)
    state = {name: _bytes(value) for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        moments = optimiser.state.get(parameter, {})
        state |= {f"{name}:{field}": _bytes(value) for field, value in moments.items()}
    return state


def encoder_of(folder: Path) -> list[Any]:
    """Read an exported encoder: all that one needs to make and feed it."""
    found = read_run_encoder(str(folder))
    weights = {name: _bytes(tensor) for name, tensor in sorted((found.state or {}).items())}
    return [found.arguments, found.mean, found.std, weights]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()
