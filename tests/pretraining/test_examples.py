"""The student's pixels are the teacher's, for every sample and view; other images are refused."""

import dataclasses

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.data.batching import join, stack
from milan_pipeline.data.viewed_pairs import stored_view
from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.images.decode import digest
from milan_pipeline.models.student import SUPERVISE, in_grid_order, patchify, supervised_slice
from milan_pipeline.pretraining.examples import CHUNK, ExampleConfig, ToExamples
from milan_pipeline.pretraining.masking import MASKINGS, draw_mask
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from milan_pipeline.targets.shard_records import RecordLayout, layout_of
from tests.support.cli import run_cli
from tests.support.clip import MEAN, STD
from tests.support.disturbances import before_modules
from tests.support.pairs import tensors_of
from tests.support.pictures import write_photos
from tests.support.stores import targets_of

VIEWS = 3


@pytest.fixture(scope="module")
def photo_shards(tmp_path_factory):
    """One picture of every odd kind, in shards of 5."""
    root = tmp_path_factory.mktemp("odd")
    write_photos(root / "photos")
    run_cli("pack-images", root / "photos", root / "shards", "--samples-per-shard", 5)
    return root / "shards"


def extract_and_watch(images, tiny_clip, out):
    """Extract and pack targets; return the teacher's pixels, view by view, in order."""
    seen = []

    def watch(module, inputs):
        if isinstance(module, torch.nn.Conv2d):  # the first layer, after normalisation
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
            seen.extend(((inputs[0] * std + mean) * 255).round().to(torch.uint8))

    with before_modules(watch):
        run_cli(
            "extract-targets", "--images", images, "--out", out / "t.zarr", "--views", VIEWS,
            "--teacher", f"local-dir:{tiny_clip}", "--batch-size", 4, "--precision", "fp32",
        )  # fmt: skip
    run_cli("pack-targets", "--targets", out / "t.zarr", "--out", out / "targets")
    return seen


def raw_pairs(images, targets):
    """Read (view, key, image bytes, target bytes) of all pairs, in the order of extraction."""
    image_manifest = load_manifest(str(images), kind="images")
    target_manifest = load_manifest(str(targets), kind="targets")
    by_unit = {
        (shard.details["view"], shard.details["source"]): shard for shard in target_manifest.shards
    }
    for view in range(VIEWS):
        for shard in image_manifest.shards:
            targets = targets_of(target_manifest, by_unit[view, shard.stem])
            images = iterate_shard(image_manifest, shard)
            for image, (key, target) in zip(images, targets, strict=True):
                assert image.key == key
                yield view, key, next(iter(image.members.values())), target


@pytest.mark.parametrize("shards", ["image_shards", "photo_shards"])
def test_the_students_pixels_are_the_teachers_for_every_sample_and_view(
    shards, tiny_clip, tmp_path, request
):
    images = request.getfixturevalue(shards)
    seen = extract_and_watch(images, tiny_clip, tmp_path)
    identity = load_manifest(str(tmp_path / "targets"), kind="targets").common["identity"]
    config = ExampleConfig(
        image_size=32, patch_size=8, kept=4, mask_seed=0, layouts=(layout_of(identity),)
    )
    pairs = list(raw_pairs(images, tmp_path / "targets"))
    assert len(pairs) == VIEWS * load_manifest(str(images), kind="images").samples
    for (view, key, image, target), teachers in zip(pairs, seen, strict=True):
        record = config.layouts[0].from_bytes(target)
        ours = stored_view(image, record, image_size=32, digest=digest(image), key=key)
        assert ours.dtype == teachers.dtype == torch.uint8
        assert torch.equal(ours, teachers), (view, key)
        example = example_of(config, sample_of(key, image, target))
        assert torch.equal(example.patches_BKP, patchify(teachers, 8)[example.kept_BK])
        assert sorted([*example.kept_BK, *example.masked_BM]) == list(range(16))


def example_of(config, sample):
    (example,) = ToExamples(config)([sample])
    return example


def sample_of(key, image, target, epoch=0):
    return {
        "__key__": key,
        "__url__": "images-000000.tar",
        "epoch": epoch,
        "image": image,
        "digest": digest(image),
        "target.npy": target,
    }


@pytest.fixture(scope="module")
def one(image_shards, target_shards):
    """An example configuration and one raw pair of the session's shards."""
    images = load_manifest(str(image_shards), kind="images")
    targets = load_manifest(str(target_shards), kind="targets")
    layout = layout_of(targets.common["identity"])
    config = ExampleConfig(image_size=32, patch_size=8, kept=4, mask_seed=0, layouts=(layout,))
    image = next(iterate_shard(images, images.shards[0]))
    _, target = targets_of(targets, targets.shards[0])[0]
    return config, sample_of(image.key, image.members["jpg"], target)


def test_a_target_of_other_image_bytes_is_refused_by_name(one):
    config, sample = one
    changed = sample | {"digest": sample["digest"] ^ 1}
    with pytest.raises(MismatchError, match=f"{sample['__key__']}.*other image bytes"):
        example_of(config, changed)


@pytest.mark.parametrize("part", ["image", "target.npy"])
def test_bytes_that_cannot_be_used_are_refused_by_name(one, part):
    config, sample = one
    torn = sample[part][:100]
    if part == "image":
        record = config.layouts[0].from_bytes(sample["target.npy"]).copy()
        record["digest"] = digest(torn)
        whole = np.zeros((), dtype=config.layouts[0].dtype)
        whole[()] = record
        sample = sample | {"target.npy": config.layouts[0].to_bytes(whole), "digest": digest(torn)}
    with pytest.raises(DataError, match=rf"images-000000\.tar, sample '{sample['__key__']}': "):
        example_of(config, sample | {part: torn})


@pytest.mark.parametrize(
    "box",
    [
        (-1, 0, 8, 8), (0, -5, 8, 8), (9000, 0, 8, 8), (0, 0, 8, 9000), (0, 0, 0, 8),
        (0, 0, 8, 0.5), (np.nan, 0, 8, 8), (0, 0, np.inf, 8), (-np.inf, 0, 8, 8),
    ],
)  # fmt: skip
def test_a_box_outside_the_image_is_refused_by_name(one, box):
    config, sample = one
    record = np.zeros((), dtype=config.layouts[0].dtype)
    record[()] = config.layouts[0].from_bytes(sample["target.npy"])
    record["box"] = box
    with pytest.raises(DataError, match=rf"{sample['__key__']}.*box .* is not inside the image"):
        example_of(config, sample | {"target.npy": config.layouts[0].to_bytes(record)})


def test_each_epoch_draws_another_mask_from_the_same_pixels(one):
    config, sample = one
    first, again, later = (example_of(config, sample | {"epoch": epoch}) for epoch in (0, 0, 1))
    assert torch.equal(first.kept_BK, again.kept_BK)
    assert not torch.equal(first.kept_BK, later.kept_BK)
    in_grid = (in_grid_order(*fields(example)) for example in (first, later))
    assert torch.equal(*in_grid)
    assert not torch.equal(first.codes[0], later.codes[0])


def fields(example, tokens=None):
    """Return codes (or `tokens`), kept and masked patches as a batch of one."""
    codes = example.codes[0] if tokens is None else tokens
    return codes[None], example.kept_BK[None], example.masked_BM[None]


@pytest.fixture(scope="module")
def scaled(one):
    """The same, its target stored with a scale a token."""
    config, sample = one
    record = config.layouts[0].from_bytes(sample["target.npy"])
    (own,) = config.layouts
    layout = RecordLayout(make_codec("int8").spec, own.patches, own.width)
    encoded = make_codec("int8").encode(torch.from_numpy(record["codes"].astype(np.float32)))
    assert encoded.scale_nN is not None
    again = np.zeros((), dtype=layout.dtype)
    for name in ("box", "flip", "digest", "prior"):
        again[name] = record[name]
    again["codes"], again["scale"] = encoded.codes_nNC.numpy(), encoded.scale_nN.numpy()
    config = dataclasses.replace(config, layouts=(layout,))
    return config, sample | {"target.npy": layout.to_bytes(again)}


@pytest.mark.parametrize("masking", MASKINGS)
def test_codes_and_scale_come_in_student_order(scaled, masking):
    config, sample = scaled
    record = config.layouts[0].from_bytes(sample["target.npy"])
    example = example_of(dataclasses.replace(config, masking=masking), sample)
    codes, kept, masked = fields(example)
    assert torch.equal(in_grid_order(codes, kept, masked)[0], torch.tensor(record["codes"]))
    scale = in_grid_order(*fields(example, example.scales[0][:, None]))
    assert torch.equal(scale[0, :, 0], torch.tensor(record["scale"]))


@pytest.mark.parametrize("supervise", SUPERVISE)
def test_what_is_not_supervised_is_left_behind(scaled, supervise):
    config, sample = scaled
    whole = example_of(config, sample)
    part = example_of(dataclasses.replace(config, supervise=supervise), sample)
    wanted = supervised_slice(supervise, kept=4, patches=16)
    assert torch.equal(part.codes[0], whole.codes[0][wanted])
    assert torch.equal(part.scales[0], whole.scales[0][wanted])
    assert torch.equal(part.patches_BKP, whole.patches_BKP)
    storage = part.codes[0].untyped_storage()
    assert storage.nbytes() == part.codes[0].numel()  # a copy, not a view of the whole record


def test_the_masking_asked_for_is_drawn(one):
    config, sample = one
    kept = {
        masking: example_of(dataclasses.replace(config, masking=masking), sample).kept_BK.tolist()
        for masking in MASKINGS
    }
    prior = config.layouts[0].from_bytes(sample["target.npy"])["prior"]
    for masking, found in kept.items():
        words = {"grid": (4, 4), "seed": 0, "epoch": 0, "key": sample["__key__"]}
        assert found == draw_mask(masking, prior, 4, **words)[0].tolist()
    assert len({tuple(found) for found in kept.values()}) == 3


def test_examples_stack_and_parts_join_in_order(one):
    config, sample = one
    examples = [example_of(config, sample | {"epoch": epoch}) for epoch in range(4)]
    whole, halves = stack(examples), join([stack(examples[:2]), stack(examples[2:])])
    assert whole.keys == halves.keys == [sample["__key__"]] * 4
    assert all(map(torch.equal, tensors_of(whole), tensors_of(halves)))


def test_chunks_of_samples_give_what_single_samples_give(one):
    config, sample = one
    samples = [sample | {"epoch": epoch} for epoch in range(CHUNK + 3)]
    together = list(ToExamples(config)(iter(samples)))
    assert len(together) == len(samples)
    for ours, changed in zip(together, samples, strict=True):
        alone = example_of(config, changed)
        assert all(map(torch.equal, tensors_of(ours), tensors_of(alone)))


@pytest.mark.parametrize("supervise", SUPERVISE)
def test_an_image_that_is_coded_as_a_whole_comes_as_a_whole(one, supervise):
    config, sample = one
    (own,) = config.layouts
    layout = RecordLayout(parse_codec("joint:bytes=4"), own.patches, own.width)
    record = np.zeros((), dtype=layout.dtype)
    for name in ("box", "flip", "digest"):
        record[name] = own.from_bytes(sample["target.npy"])[name]
    record["codes"] = np.arange(17 * 4)[None]
    changed = sample | {"target.npy": layout.to_bytes(record)}
    part = example_of(dataclasses.replace(config, layouts=(layout,), supervise=supervise), changed)
    assert torch.equal(part.codes[0], torch.arange(17 * 4, dtype=torch.uint8)[None])
