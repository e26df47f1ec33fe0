"""Pairs of images and targets, a few, and how they are read."""

import dataclasses
import tempfile

from hypothesis import strategies as st

from milan_pipeline.data.join_pairs import join_pairs
from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches
from milan_pipeline.pretraining.examples import ExampleConfig, ToExamples
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.shards.columns import read_image_columns, read_target_columns
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.random_access import Place
from milan_pipeline.shards.writer import Sample, write_shard

KEYS = tuple("abcdefghij")
ORDER = (3, 0, 9, 4, 4, 1)
EXPECTED = [(f"image {KEYS[n]}".encode() * 30, f"target {KEYS[n]}".encode() * 30) for n in ORDER]
KEY = st.text("abcdefgh-_/äé ", min_size=1, max_size=150).filter(
    lambda key: not key.startswith("/") and not key.endswith("/") and "//" not in key
)


def open_data(images, targets, *, batch=12, lanes=12):
    return open_run_data(
        str(images),
        {"": str(targets)},
        views=None,
        on_missing="error",
        order=OrderChoice(batch=batch, lanes=lanes, block=5, seed=0),
    )


def stream(data, steps, *, workers=0, **share):
    layouts = tuple(teacher.layout for teacher in data.teachers)
    config = ExampleConfig(image_size=32, patch_size=8, kept=4, mask_seed=0, layouts=layouts)
    return batches(
        PairSamples(data.pairs),
        data.order,
        ToExamples(config),
        steps=steps,
        workers=workers,
        **share,
    )


def tensors_of(batch):
    """Return the tensors of a pretraining batch, with those of each teacher."""
    return [batch.patches_BKP, batch.kept_BK, batch.masked_BM, *batch.codes, *batch.scales]


def write_world(folder):
    """One image shard and its targets, ten pairs of a few hundred bytes."""

    def samples(kind, extension):
        return [Sample(key, {extension: f"{kind} {key}".encode() * 30}) for key in KEYS]

    image = write_shard(folder, "x.tar", samples("image", "jpg"))
    target = write_shard(folder, "targets-x.tar", samples("target", "target.npy"))
    details = {"view": 0, "source": "x", "source_sha256": image.sha256, "skipped": []}
    target = dataclasses.replace(target, details=details)
    images = Manifest(kind="images", folder=folder, shards=(image,))
    targets = Manifest(kind="targets", folder=folder, shards=(target,))
    return joined_pairs(images, targets)


def joined_pairs(images, *targets, views=1, on_missing="error", or_skip=""):
    """Join what manifests list, of images and of each teacher's targets."""
    with tempfile.TemporaryDirectory() as folder:  # not beside the shards, which may lie together
        for number, manifest in enumerate((images, *targets)):
            dataclasses.replace(manifest, folder=f"{folder}/{number}").save()
        image = read_image_columns(f"{folder}/0")
        found = [read_target_columns(f"{folder}/{n}") for n in range(1, 1 + len(targets))]
    image = dataclasses.replace(image, head=images)
    stores = [
        dataclasses.replace(each, shards=dataclasses.replace(each.shards, head=manifest))
        for each, manifest in zip(found, targets, strict=True)
    ]
    return join_pairs(image, stores, views=views, on_missing=on_missing, or_skip=or_skip)


def places():
    return iter([Place(0, 0, 0, number) for number in ORDER])


def image_of(shard, key):
    return f"image {shard} {key}".encode()


def target_of(view, shard, key):
    return f"target {view} {shard} {key}".encode()


def write_images(folder, shards):
    """Write image shards: {stem: keys}; the bytes say what they are of."""
    written = [
        write_shard(
            str(folder), f"{stem}.tar", [Sample(key, {"jpg": image_of(stem, key)}) for key in keys]
        )
        for stem, keys in shards.items()
    ]
    return saved(Manifest(kind="images", folder=str(folder), shards=tuple(written)))


def write_targets(folder, images, shards, *, skipped=None, views=2):
    """Write target shards of image shards: {stem: keys}; so are the keys that were skipped."""
    sha256 = {shard.stem: shard.sha256 for shard in images.shards}
    written = []
    for view in range(views):
        for stem, keys in shards.items():
            samples = [Sample(key, {"target.npy": target_of(view, stem, key)}) for key in keys]
            shard = write_shard(str(folder), f"view-{view:02d}/targets-{view}-{stem}.tar", samples)
            details = {
                "view": view,
                "source": stem,
                "source_sha256": sha256.get(stem, "0" * 64),
                "skipped": [
                    {"key": key, "reason": "unreadable"} for key in (skipped or {}).get(stem, ())
                ],
            }
            written.append(dataclasses.replace(shard, details=details))
    return saved(Manifest(kind="targets", folder=str(folder), shards=tuple(written)))


def saved(manifest):
    manifest.save()
    return load_manifest(manifest.folder, kind=manifest.kind)
