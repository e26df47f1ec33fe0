"""docs/formats.md: what the library writes, a reader that was written from the page alone reads."""

import ast
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

from milan_pipeline.data.viewed_pairs import iterate_pairs
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.store import open_targets
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.weights.run_weights import encoder_weights
from tests.docs import independent_reader as reader
from tests.docs.documentation import DOCS, page_blocks
from tests.support.cli import run_cli

CODECS = ("float16", "bfloat16", "int8", "joint:bytes=4", "joint:bytes=1.1")
SMALL = (
    "--student", "vit_tiny_patch16_224", "--patch-size", 8, "--width", 32, "--depth", 1, "--heads",
    2, "--decoder-width", 32, "--decoder-depth", 1, "--decoder-heads", 2, "--max-steps", 2,
    "--workers", 0,
)  # fmt: skip


@pytest.fixture(params=CODECS)
def packed(request: pytest.FixtureRequest, target_store: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A store of some codec and its target shards."""
    store, shards = target_store, tmp_path / "shards"
    if request.param != "float16":
        store = tmp_path / "targets.zarr"
        run_cli("transcode", target_store, store, "--codec", request.param)
    run_cli("pack-targets", "--targets", store, "--out", shards)
    return store, shards


def examples() -> list[dict[str, Any]]:
    """The JSON documents that the page shows: a manifest and a mark."""
    blocks = page_blocks(DOCS / "formats.md")
    return [json.loads(block.text) for block in blocks if block.language == "json"]


def shape_of(document: Any) -> Any:
    """The types in a JSON document, in the place of its values; of a list those of its first."""
    if isinstance(document, dict):
        return {name: shape_of(value) for name, value in document.items()}
    if isinstance(document, list):
        return [shape_of(value) for value in document[:1]]
    return type(document)


def assert_rows_are(rows: reader.Rows, ours: Any, *, exact: bool) -> None:
    assert rows.key == ours.keys
    # Tokens of a fitted codec have a length of about 1.
    most = 0 if exact else 1e-6
    assert abs(rows.tokens - ours.tokens_nND).max() <= most
    assert rows.tokens.dtype == ours.tokens_nND.dtype
    for found, wanted in (
        (rows.prior, ours.prior_nL), (rows.box, ours.box), (rows.flip, ours.flip),
    ):  # fmt: skip
        assert np.array_equal(found, wanted)
        assert found.dtype == wanted.dtype


def test_the_reader_has_nothing_of_ours() -> None:
    nodes = list(ast.walk(ast.parse(Path(reader.__file__).read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    imported = {name.partition(".")[0] for name in names}
    assert imported - sys.stdlib_module_names == {"numpy", "xxhash", "zarr"}


def test_stores_and_target_shards_of_every_codec(packed: tuple[Path, Path]) -> None:
    store, shards = packed
    ours = open_targets(str(store))
    exact = not ours.codec.spec.needs_fit  # else the order of a sum is left open
    marks = reader.finished_units(store)
    assert set(marks) == set(ours.units)
    listed = {
        (shard["details"]["view"], shard["details"]["source"]): shard
        for shard in reader.read_manifest(shards, "targets")["shards"]
    }
    assert set(listed) == set(marks)
    for (view, stem), mark in marks.items():
        rows = reader.read_unit(store, view, stem)
        assert len(rows.key) == mark["n"]
        assert_rows_are(rows, ours.read(view, stem), exact=exact)
        for again in (
            reader.read_target_shard(shards, listed[view, stem]),
            reader.read_target_members(shards, listed[view, stem]),
        ):
            assert all(np.array_equal(*pair) for pair in zip(rows, again, strict=True))


def test_target_shards_with_a_member_a_sample(target_store: Path, lone_target_shards: Path) -> None:
    for shard in reader.read_manifest(lone_target_shards, "targets")["shards"]:
        details = shard["details"]
        rows = reader.read_unit(target_store, details["view"], details["source"])
        assert "target.npy" in next(iter(reader.read_members(lone_target_shards, shard).values()))
        for again in (
            reader.read_target_shard(lone_target_shards, shard),
            reader.read_target_members(lone_target_shards, shard),
        ):
            assert all(np.array_equal(*pair) for pair in zip(rows, again, strict=True))


def test_image_shards(image_shards: Path) -> None:
    manifest = load_manifest(str(image_shards), kind="images")
    for shard, ours in zip(
        reader.read_manifest(image_shards, "images")["shards"], manifest.shards, strict=True
    ):
        samples = reader.read_members(image_shards, shard)
        assert samples == {sample.key: sample.members for sample in iterate_shard(manifest, ours)}
        images = {key: reader.image_of(members) for key, members in samples.items()}
        assert images == reader.read_indexed(image_shards, shard)


def test_an_index_holds_class_numbers_and_the_places_of_masks(tmp_path: Path) -> None:
    samples = [
        Sample("a", {"jpg": b"first", "cls": b"7", "mask.png": b"mask of a"}),
        Sample("b", {"jpg": b"second"}),
    ]
    shard = write_shard(str(tmp_path), "x.tar", samples)
    tar = (tmp_path / "x.tar").read_bytes()
    first, second = np.load(tmp_path / "x.index.npy")
    assert (first["label"], second["label"]) == (7, -1)
    begin, length = first["mask_offset"], first["mask_length"]
    assert tar[begin : begin + length] == b"mask of a"
    assert first["mask_xxh3"] == xxhash.xxh3_64_intdigest(b"mask of a")
    assert second["mask_length"] == 0
    assert [row[0] for row in reader.read_index(tmp_path, vars(shard))] == ["a", "b"]


def test_a_view_is_cut_as_the_page_says(
    image_shards: Path, target_store: Path, target_shards: Path
) -> None:
    """Pillow's bicubic is the page's "antialiased bicubic", up to rounding."""
    images = reader.read_manifest(image_shards, "images")["shards"][0]
    files = reader.read_indexed(image_shards, images)
    stem = images["name"].removesuffix(".tar")
    rows = reader.read_unit(target_store, 0, stem)
    size = reader.read_root(target_store)["preprocessing"]["size"]
    pairs = iterate_pairs(images=str(image_shards), targets=str(target_shards))
    for key, box, flip, pair in zip(rows.key, rows.box, rows.flip, pairs, strict=False):
        assert pair.key == key
        top, left, height, width = map(int, box)
        with Image.open(io.BytesIO(files[key])) as image:
            part = image.convert("RGB").crop((left, top, left + width, top + height))
        view = np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        ours = pair.pixels_CSS.permute(1, 2, 0).numpy().astype(int)
        assert abs((view[:, ::-1] if flip else view) - ours).max() <= 2


def test_runs_and_checkpoints(image_shards: Path, target_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_cli("pretrain", "--images", image_shards, "--targets", target_shards, "--out", run, *SMALL)
    found = newest_checkpoint(run)
    assert found is not None
    checkpoint = reader.whole_checkpoint(found[1])
    encoder = reader.read_safetensors(run / "encoder.safetensors")
    ours = encoder_weights(run).state
    assert encoder.keys() == ours.keys()
    for name, value in encoder.items():
        assert np.array_equal(value, ours[name].numpy())
        assert np.array_equal(value, checkpoint["student.safetensors"][f"encoder.{name}"])
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(f"`{name}`" in text for name in rows[0])
    files = {path.name for path in run.iterdir()} - {".lock"}
    assert [name for name in files if f"`{name}" not in text] == []
    state = json.loads((run / "state.json").read_text())
    assert state["state"] == "done"
    record = json.loads((run / "config.json").read_text())
    for document in (state, record):
        assert all(f"`{name}`" in text for name in document)


def test_the_pages_examples_are_of_the_files_own_shape(
    image_shards: Path, target_store: Path
) -> None:
    manifest, mark = examples()
    written = json.loads((image_shards / "manifest.json").read_text())
    wanted, found = shape_of(manifest), shape_of(written)
    for shape in (wanted, found):  # which images were left out differs
        shape.pop("ignored")
        shape["shards"][0].pop("details")
    assert wanted == found
    first = next(iter(sorted(target_store.glob("done/view-00/*.json"))))
    wanted, found = shape_of(mark), shape_of(json.loads(first.read_text()))
    assert wanted.keys() == found.keys()
    assert set(wanted["objects"]) <= set(found["objects"])


def test_the_digest_is_of_the_image_files_bytes(image_shards: Path, target_shards: Path) -> None:
    targets = reader.read_manifest(target_shards, "targets")["shards"][0]
    rows = reader.read_target_shard(target_shards, targets)
    images = reader.read_manifest(image_shards, "images")["shards"][0]
    files = reader.read_indexed(image_shards, images)
    assert [xxhash.xxh3_64_intdigest(files[key]) for key in rows.key] == rows.digest.tolist()
