"""JSON, YAML and tensors of wrong types, each under its right hash: refused in a sentence."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from milan_pipeline.evaluate.classification.model import read_classifier_description
from milan_pipeline.evaluate.probe.feature_cache import _read as read_features
from milan_pipeline.evaluate.scores_file import read_scores
from milan_pipeline.models.weight_files import read_encoder_description
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import state_of, trained_steps
from milan_pipeline.shards.cache import LOCK_NAME, CacheConfig, ShardCache, ShardFile
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.codec_files import CODEC_FILE, read_shards_codec, write_shards_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.store_record import read_store_record
from milan_pipeline.targets.units import read_marks
from milan_pipeline.training.checkpoints import HASHES, verify_checkpoint
from milan_pipeline.training.evaluations import Evaluations
from tests.faults.campaign import COUNTS, attempt, chance, scaled
from tests.faults.consumers import trained_on
from tests.faults.mutations import WRONG, mutated, of_another_kind, sealed
from tests.faults.sentinel import plant, untouched
from tests.support.cli import run_cli
from tests.support.fitted import fitted
from tests.support.runs import saved
from tests.support.students import write_encoder


def mutate_and_read(
    kind: str,
    path: Path,
    read: Callable[[], Any],
    *,
    count: int,
    names: tuple[str, ...],
    change: Callable[[Any, Any], Any],
) -> None:
    """Have a document read with something in it changed, again and again.

    What is read must be what the good one gives, or an error that names it.
    """
    good, expected, random = path.read_text(), read(), chance(kind)
    try:
        for number in range(count):
            path.write_text(json.dumps(change(json.loads(good), random)))
            case = f"{path.name} {number}: {path.read_text()[:300]}"
            attempt(kind, case, read, names=names, expected=expected)
    finally:
        path.write_text(good)
    COUNTS[kind].require_none_failed()


def sealed_mutated(document: Any, random: Any) -> Any:
    return sealed(mutated(document, random))


def sealed_of_another_kind(document: Any, random: Any) -> Any:
    return sealed(of_another_kind(document, random))


def loaded(folder: Path) -> list[Any]:
    """Load a manifest and its indices."""
    manifest = load_manifest(str(folder), kind="images")
    return [load_index(manifest, shard).tolist() for shard in manifest.shards]


def test_manifests_of_images(world, tmp_path: Path) -> None:
    """Names in them lead anywhere; nothing is written there."""
    plant(tmp_path / "outside")
    with untouched(tmp_path):
        mutate_and_read(
            "JSON: image manifest", world.images / "manifest.json", lambda: loaded(world.images),
            count=scaled(1000, 100), names=("manifest.json", ".index.npy"), change=sealed_mutated,
        )  # fmt: skip


def test_manifests_of_targets(world) -> None:
    """What they say is checked against the images and, for the identity, by its own hash."""
    mutate_and_read(
        "JSON: target manifest", world.targets / "manifest.json",
        lambda: trained_on(world.images, world.targets), count=scaled(600, 60),
        names=("manifest.json", ".index.npy", str(world.targets), "targets-v0", "--views"),
        change=sealed_mutated,
    )  # fmt: skip


def test_roots_and_records_and_marks_of_stores(world) -> None:
    store, identity = str(world.store), read_identity(str(world.store))
    files: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any]]] = {
        "zarr.json": (lambda: read_identity(store), mutated),
        "extract-targets.json": (
            lambda: read_store_record(store, identity).units(),
            sealed_of_another_kind,
        ),
        "done/view-00/images-000000.json": (lambda: read_marks(store, 1), of_another_kind),
    }
    for name, (read, change) in files.items():
        mutate_and_read(
            f"JSON: {Path(name).name}", world.store / name, read, count=scaled(300, 40),
            names=(Path(name).name, store), change=change,
        )  # fmt: skip


def test_what_a_run_keeps(tmp_path: Path) -> None:
    """Descriptions without the hashes that are beside them, as those of others are."""
    saved(tmp_path, [3])
    write_encoder(tmp_path)
    (tmp_path / "encoder.sha256").unlink()
    checkpoint = tmp_path / "checkpoints/step-00000003"
    (tmp_path / "state.json").write_text('{"state": "done", "step": 3, "total_steps": 3}')
    (tmp_path / "evaluations.jsonl").write_text('{"step": 3, "top1": 0.5, "val": "v"}')
    described = json.loads((tmp_path / "encoder.json").read_text())
    described["timm"] |= {"num_classes": 3, "img_size": 32}
    more = {"crop_pct": 0.9, "classes": ["a", "b", "c"]}
    (tmp_path / "classifier.json").write_text(json.dumps(described | more))

    def encoder() -> Any:
        description = read_encoder_description(str(tmp_path / "encoder.json"))
        return description["timm"]["model_name"], description["mean"], description["std"]

    def classifier() -> Any:
        found = read_classifier_description(str(tmp_path / "classifier.safetensors"))
        return found.image_size, found.mean, found.std, found.crop_pct, found.classes

    def whole() -> str:
        verify_checkpoint(checkpoint)
        return "whole"

    readers: dict[Path, Callable[[], Any]] = {
        tmp_path / "state.json": lambda: (state_of(str(tmp_path)), trained_steps(tmp_path)),
        tmp_path / "evaluations.jsonl": lambda: Evaluations(tmp_path, key="top1", val="v").best(),
        tmp_path / "encoder.json": encoder,
        tmp_path / "classifier.json": classifier,
        checkpoint / HASHES: whole,
    }
    for path, read in readers.items():
        mutate_and_read(
            f"JSON: {path.name}", path, read, count=scaled(200, 40), change=of_another_kind,
            names=(path.name, checkpoint.name),
        )  # fmt: skip


ARRAYS: list[Any] = [
    np.zeros(0), np.zeros((2, 2, 2)), np.zeros(3, np.int64), np.array(1.0), np.full(3, np.nan),
]  # fmt: skip


@pytest.mark.parametrize("text", ["joint:bytes=4", "joint:bytes=3"])
def test_codec_files(text: str, tmp_path: Path) -> None:
    """Each array is missing, or another; all are checked against the identity's hash."""
    codec, kind = fitted(text), "tensors: codec's arrays"
    identity = {"codec": codec.parameters()}
    write_shards_codec(str(tmp_path), codec)
    good = safetensors.numpy.load((tmp_path / CODEC_FILE).read_bytes())
    for name in good:
        for array in (None, *ARRAYS):
            arrays = {k: v for k, v in good.items() if k != name}
            arrays |= {} if array is None else {name: array}
            (tmp_path / CODEC_FILE).write_bytes(safetensors.numpy.save(arrays))
            attempt(
                kind, f"{name} is {array!r}", lambda: read_shards_codec(str(tmp_path), identity),
                names=[CODEC_FILE],
            )  # fmt: skip
    COUNTS[kind].require_none_failed()


def test_cached_features_under_their_right_hash(tmp_path: Path) -> None:
    """What is cached counts as not there, and is made again."""
    kind, url = "tensors: cached features", str(tmp_path / "f")
    note = np.frombuffer(json.dumps({"pools": ["cls"], "bad": []}).encode(), np.uint8)
    good = {"features": np.zeros((3, 2), np.float32), "labels": np.zeros(3, np.int64), "note": note}
    notes = [np.frombuffer(json.dumps(wrong).encode(), np.uint8) for wrong in WRONG]
    changes: list[tuple[str, Any]] = [(name, None) for name in good]
    changes += [("features", array) for array in ARRAYS]
    changes += [("labels", array) for array in ARRAYS if array.dtype != np.int64]
    changes += [("note", array) for array in (*ARRAYS, *notes)]
    for name, array in changes:
        arrays: dict[str, Any] = {k: v for k, v in good.items() if k != name}
        arrays |= {} if array is None else {name: array}
        data = safetensors.numpy.save(arrays)
        (tmp_path / "f.safetensors").write_bytes(data)
        (tmp_path / "f.sha256").write_text(hashlib.sha256(data).hexdigest())
        attempt(
            kind, f"{name}: {array!r}", lambda: read_features(url) is None, names=[], expected=True
        )
    COUNTS[kind].require_none_failed()


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"9" * 5000, b"\xff", b"1e9", b"[]"])
def test_the_count_in_a_cache_of_pieces(text: bytes, tmp_path: Path) -> None:
    """It is counted anew where it is none."""
    kind, data = "count of a cache", b"a shard" * 100
    (tmp_path / "x.tar").write_bytes(data)
    cache = ShardCache(CacheConfig(folder=tmp_path / "cache", max_bytes=1 << 30))
    (tmp_path / "cache" / LOCK_NAME).write_bytes(text)
    file = ShardFile(str(tmp_path / "x.tar"), len(data), "sha")
    attempt(kind, repr(text[:9]), lambda: cache.read(file, 0, 700), names=[], expected=data)
    COUNTS[kind].require_none_failed()
    assert int((tmp_path / "cache" / LOCK_NAME).read_bytes()) >= len(data)


JSONS = [b"", b"\xff\xfe", b"[", b"3", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b'"x"']


@pytest.mark.parametrize("text", JSONS, ids=lambda text: repr(text[:6]))
def test_json_that_is_none(text: bytes, tmp_path: Path) -> None:
    kind = "JSON: none"
    saved(tmp_path, [3])
    checkpoint = tmp_path / "checkpoints/step-00000003"
    (tmp_path / "done/view-00").mkdir(parents=True)
    url = str(tmp_path)
    files: dict[Path, Callable[[], Any]] = {
        tmp_path / "manifest.json": lambda: load_manifest(url, kind="images"),
        tmp_path / "extract.json": lambda: read_record(str(tmp_path / "extract.json")),
        tmp_path / "done/view-00/x.json": lambda: read_marks(url, 1),
        tmp_path / "zarr.json": lambda: read_identity(url),
        tmp_path / "state.json": lambda: state_of(url),
        tmp_path / "encoder.json": lambda: read_encoder_description(str(tmp_path / "encoder.json")),
        tmp_path / "scores.json": lambda: read_scores(url),
        checkpoint / HASHES: lambda: verify_checkpoint(checkpoint),
    }
    for path, read in files.items():
        path.write_bytes(text)
        names = [path.name, checkpoint.name, url]
        attempt(kind, f"{path.name}: {text[:20]!r}", read, names=names)
    COUNTS[kind].require_none_failed()


YAMLS = [
    "!!python/object/apply:os.system ['touch attacked']", "a: !!python/name:os.system", "a: [",
    "- a\n- b", "a: &a [*a]", "? [1]\n: 2", "\x00", "a: !unknown 3", "%YAML 9.9\n---\na: 1",
    "a: 2001-99-99", "[" * 5000, "batch-size: [1, 2]", "batch-size: {a: 1}", "batch-size: .inf",
    "batch-size: -3", "seed: 1e400", "epochs: 2001-01-01", "? pretrain\n: 3", "pretrain: [1]",
    "batch-size: '" + "9" * 5000 + "'",
]  # fmt: skip


@pytest.mark.parametrize("text", YAMLS, ids=lambda text: repr(text[:16]))
def test_configurations(text: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """Refused as wrong usage, in a sentence; nothing is made, least of all by an object in YAML."""
    monkeypatch.chdir(tmp_path)
    path, kind = tmp_path / "strange.yaml", "YAML: configuration"
    path.write_text(text)
    words = ("--config", path, "--images", "nowhere", "--targets", "nowhere", "--out", "out")

    def refused() -> bool:
        run_cli("pretrain", *words, code=2)
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("Error: ")]
        return len(said) == 1 and "unexpected" not in said[0] and "Traceback" not in str(lines)

    with untouched(tmp_path):
        attempt(kind, text[:60], refused, names=[], expected=True)
    COUNTS[kind].require_none_failed()
