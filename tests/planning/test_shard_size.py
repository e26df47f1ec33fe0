"""The bytes of target shards, foretold: tars, indices and manifest, to the byte."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.record_arrays import array_shapes
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.planning.dataset import key_bytes
from milan_pipeline.planning.shard_size import ShardSize, tar_header_bytes
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.codec_files import CODEC_FILE, write_shards_codec
from milan_pipeline.targets.layout import OUTER_SHARD
from milan_pipeline.targets.shard_records import TARGET_EXTENSION, layout_of
from milan_pipeline.targets.units import Unit, target_shard_name
from tests.support.pairs import KEY
from tests.support.stores import identity_of

KEYS = {
    **{f"{count}": [f"class/{number}" for number in range(count)] for count in (0, 1, 255, 257)},
    "a block": [f"{number}" for number in range(256)],
    "two blocks": [f"class/{number}" * (1 + number // 10) for number in range(512)],
    "long": [f"{'d' * 95}/{number}" for number in range(20)],
    "not ASCII": [f"ä{'b' * number}" for number in range(20)],
    "very long": ["é" * 300, "x" * 600, "y" * 89, "z" * 88, "w" * 80],
    "quoted": ['"', "\\\\", "\t", "\u2028", "𝄞"],
}
SHARED = [
    ("float16", 9, 6), ("int8", 9, 6), ("joint:bytes=4", 9, 6), ("tiny", 64, 128),
    ("joint:bytes=21", 64, 128),
]  # fmt: skip
LONE = [("float16", 64, 128), ("int8", 196, 64), ("joint:bytes=300", 40, 512)]


def packed(folder: Path, identity: Identity, keys: list[str]) -> tuple[Manifest, Shard]:
    layout = layout_of(identity)
    blocks = (keys[start : start + OUTER_SHARD] for start in range(0, len(keys), OUTER_SHARD))
    samples = (
        sample
        for block in blocks
        for sample in layout.samples_of(block, np.zeros(len(block), layout.dtype))
    )
    listed = write_shard(str(folder), "t.tar", samples)
    return Manifest(kind="targets", folder=str(folder), shards=(listed,)), listed


def require_foretold(folder: Path, identity: Identity, keys: list[str]) -> None:
    manifest, listed = packed(folder, identity, keys)
    table = load_index(manifest, listed)
    assert keys_of(table) == keys
    found, size = key_bytes(table), ShardSize(identity)
    assert size.tar(len(keys), found) == (folder / "t.tar").stat().st_size
    image_shard = Shard(name="i.tar", samples=len(keys), bytes=0, sha256="", index_sha256="")
    written = sum(path.stat().st_size for path in folder.iterdir())
    assert size.units([(Unit(0, image_shard), found)]) == written
    assert found.total == sum(len(key.encode()) for key in keys)


@pytest.mark.parametrize("codec", [*SHARED, *LONE], ids=str)
@pytest.mark.parametrize("kind", KEYS)
def test_a_shard_takes_what_was_said(
    tmp_path: Path, codec: tuple[str, int, int], kind: str
) -> None:
    identity = identity_of(*codec)
    assert layout_of(identity).is_shared == (codec in SHARED)
    require_foretold(tmp_path, identity, KEYS[kind])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(keys=st.lists(KEY, max_size=9, unique=True), codec=st.sampled_from([SHARED[3], LONE[0]]))
def test_any_keys_take_what_was_said(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], codec: tuple[str, int, int]
) -> None:
    require_foretold(tmp_path_factory.mktemp("s"), identity_of(*codec), keys)


def test_headers_that_cost_over_a_tenth_make_samples_share(tmp_path: Path) -> None:
    layouts = [layout_of(identity_of("int8", 49, width)) for width in range(100, 300, 3)]
    assert {layout.is_shared for layout in layouts} == {False, True}
    for layout in layouts:
        alone = {TARGET_EXTENSION: layout.to_bytes(np.zeros((), layout.dtype))}
        samples = [Sample("a", alone), Sample("b", alone)]
        listed = write_shard(str(tmp_path), "t.tar", samples)
        manifest = Manifest(kind="targets", folder=str(tmp_path), shards=(listed,))
        first, second = load_index(manifest, listed)["offset"].tolist()
        record = layout.dtype.itemsize
        assert layout.is_shared == (second - first - record > record / 10)


@pytest.mark.parametrize(("key", "size"), [("a", 512), ("a" * 89, 512), ("a" * 90, 1536)])
def test_long_names_take_more(key: str, size: int) -> None:
    assert tar_header_bytes(key) == size


@pytest.mark.parametrize("codec", ["int8", "joint:bytes=3"])
def test_the_manifest_takes_what_was_said(tmp_path: Path, codec: str) -> None:
    identity, spec = identity_of(codec, 9, 6), parse_codec(codec)
    tokens = torch.randn(30, 10, 6, generator=torch.manual_seed(0))
    fitted = fit_codec(spec, tokens) if spec.needs_fit else None
    shard = Shard(name="i.tar", samples=3, bytes=0, sha256="5" * 64, index_sha256="")
    keys = key_bytes(load_index(*indexed(tmp_path)))
    units = [(Unit(view, shard), keys) for view in range(3)]
    size = ShardSize(identity)
    listed = tuple(
        Shard(
            name=target_shard_name(unit),
            samples=3,
            bytes=size.tar(3, keys),
            sha256="1" * 64,
            index_sha256="2" * 64,
            details={
                "view": unit.view,
                "source": "i",
                "source_sha256": "5" * 64,
                "unit_sha256": "3" * 64,
                "identity_hash": "4" * 64,
                "skipped": [],
            },
        )
        for unit, _ in units
    )
    common = {"identity": identity, "identity_hash": content_hash(identity)}
    folder = tmp_path / "m"
    Manifest(kind="targets", folder=str(folder), shards=listed, common=common).save()
    if fitted is None:
        assert size.manifest(units) == sum(path.stat().st_size for path in folder.iterdir())
        return
    file = folder / CODEC_FILE
    write_shards_codec(str(folder), fitted)
    counted = size.manifest(units) - (folder / "manifest.json").stat().st_size
    most = sum(math.prod(shape) * 4 for shape in array_shapes(fitted.spec, 10, 6).values())
    assert file.stat().st_size <= counted <= most


def indexed(folder: Path) -> tuple[Manifest, Shard]:
    shard = write_shard(str(folder), "x.tar", [Sample(key, {"jpg": b"1"}) for key in "abc"])
    return Manifest(kind="images", folder=str(folder), shards=(shard,)), shard
