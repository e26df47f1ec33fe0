"""Tars, manifests, configurations and weights made to harm: refused in one sentence, or harmless.

Nothing outside the output folder is touched, and no code comes out of data.
"""

import functools
import hashlib
import io
import json
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milan_pipeline import storage
from milan_pipeline.checkpoints import HASHES, verify_checkpoint
from milan_pipeline.foreign_checkpoints import read_weights
from milan_pipeline.manifest import Manifest, Shard, load_index, load_manifest
from milan_pipeline.provenance import read_record
from milan_pipeline.recipes import read_document
from milan_pipeline.units import read_marks
from tests.conftest import run_cli
from tests.faults.campaign import COUNTS, attempt, chance, scaled
from tests.faults.consumers import indexed
from tests.test_checkpoints import saved

PICTURE = b"\xff\xd8\xff a picture, as far as an index cares"
UNSAFE = re.compile(
    r"shell=True|os\.system|pickle\.loads?\(|yaml\.(load|unsafe_load|full_load)\(|"
    r"allow_pickle=True|weights_only=False|(?<![\w.])(eval|exec)\("
)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[Any, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    data = PICTURE if kind == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


# What comes with one good sample, and how many samples and reasons the index then has;
# None where the tar must be refused.
TARS: dict[str, tuple[list[tuple[Any, bytes]], int | None]] = {
    "a path that leads out": ([member("../../outside.jpg")], 2),
    "an absolute path": ([member("/outside.jpg")], 2),
    "a link": ([member("link.jpg", tarfile.SYMTYPE, "/etc/passwd")], 1),
    "a hard link": ([member("hard.jpg", tarfile.LNKTYPE, "good.jpg")], 1),
    "a device": ([member("device.jpg", tarfile.CHRTYPE)], 1),
    "a pipe": ([member("fifo.jpg", tarfile.FIFOTYPE)], 1),
    "a folder": ([member("folder.jpg", tarfile.DIRTYPE)], 1),
    "a name that is not UTF-8": ([member("bad\udcff.jpg")], 2),
    "dots in a key": ([member("one.two.jpg")], 2),
    "a name of 10,000 characters": ([member("n" * 10_000 + ".jpg")], 2),
    "an empty key": ([member(".jpg")], 1),
    "a name with a line break": ([member("two\nlines.jpg")], 2),
    "a key twice": ([member("good.jpg")], None),
    "a key twice, apart": ([member("other.jpg"), member("good.jpg")], None),
}


def bytes_of_tar(members: list[tuple[Any, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in [member("good.jpg"), *members]:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("case", TARS)
def test_tars_of_strangers(case: str, tmp_path: Path) -> None:
    """Indexed in a folder of its own; beside it, nothing appears."""
    members, samples = TARS[case]
    tar = tmp_path / "in/strange.tar"
    tar.parent.mkdir()
    tar.write_bytes(bytes_of_tar(members))
    kind = "tar of a stranger, indexed"
    attempt(
        kind, case, lambda: indexed(tar, tmp_path / "out")[0], names=["strange.tar"],
        expected=samples,
    )  # fmt: skip
    COUNTS[kind].require_none_failed()
    outside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.iterdir()}
    assert outside <= {"in", "out"}
    assert not Path("/outside.jpg").exists()


WRONG: list[Any] = [None, True, -1, 1e400, "text", "\x00", [[]], {}, {"a": 1}, "9" * 5000]


def mutated(document: Any, random: Any) -> Any:
    """Return a document with one value, at any depth, replaced by one of another kind."""
    if isinstance(document, dict | list) and document and random.random() < 0.8:
        places = list(document) if isinstance(document, dict) else range(len(document))
        at = random.choice(places)
        copy = document.copy()
        copy[at] = mutated(document[at], random)
        return copy
    return random.choice(WRONG)


def sealed(document: Any) -> Any:
    """Give a manifest the hash that makes it credible."""
    if not isinstance(document, dict):
        return document
    document.pop("sha256", None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return document | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def loaded(folder: Path) -> list[Any]:
    """Load a manifest and its indices."""
    manifest = load_manifest(str(folder), kind="images")
    return [load_index(manifest, shard).tolist() for shard in manifest.shards]


def test_manifests_of_wrong_types(world) -> None:
    """Each has its own right hash: only what it says is wrong."""
    path, kind = world.images / "manifest.json", "JSON of wrong types"
    good, expected, random = path.read_text(), loaded(world.images), chance(kind)
    names = ["manifest.json", ".index.npy"]
    for number in range(scaled(1000, 200)):
        path.write_text(json.dumps(sealed(mutated(json.loads(good), random))))
        attempt(
            kind, f"manifest {number}: {path.read_text()[:300]}", lambda: loaded(world.images),
            names=names, expected=expected,
        )  # fmt: skip
    path.write_text(good)
    COUNTS[kind].require_none_failed()


JSONS = [b"", b"\xff\xfe", b"[", b"3", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b'"x"']


@pytest.mark.parametrize("text", JSONS, ids=lambda text: repr(text[:6]))
def test_json_that_is_none(text: bytes, tmp_path: Path) -> None:
    kind = "JSON that is none"
    saved(tmp_path, [3])
    checkpoint = tmp_path / "checkpoints/step-00000003"
    (tmp_path / "done/view-00").mkdir(parents=True)
    files = {
        tmp_path / "manifest.json": lambda: load_manifest(str(tmp_path), kind="images"),
        tmp_path / "extract.json": lambda: read_record(str(tmp_path / "extract.json")),
        tmp_path / "done/view-00/x.json": lambda: read_marks(str(tmp_path), 1),
        checkpoint / HASHES: lambda: verify_checkpoint(checkpoint),
    }
    for path, read in files.items():
        path.write_bytes(text)
        attempt(kind, f"{path.name}: {text[:20]!r}", read, names=[path.name, checkpoint.name])
    COUNTS[kind].require_none_failed()


YAMLS = [
    "!!python/object/apply:os.system ['touch attacked']", "a: !!python/name:os.system", "a: [",
    "- a\n- b", "a: &a [*a]", "? [1]\n: 2", "\x00", "a: !unknown 3", "%YAML 9.9\n---\na: 1",
    "a: 2001-99-99", "[" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", YAMLS, ids=lambda text: repr(text[:12]))
def test_yaml_makes_nothing_but_plain_values(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, kind = tmp_path / "strange.yaml", "YAML"
    path.write_text(text)
    plain = {"a": 1} if text.startswith("%") else ...

    def read() -> Any:
        found = read_document(path)
        return found if plain is not ... else ...

    attempt(kind, text[:40], read, names=[path.name], expected=plain)
    COUNTS[kind].require_none_failed()
    assert not (tmp_path / "attacked").exists()
    words = ("--config", path, "--images", "nowhere", "--targets", "nowhere", "--out", "out")
    run_cli("pretrain", *words, code=2)


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_no_pickle_is_run(suffix: str, tmp_path: Path) -> None:
    attacked, kind = tmp_path / "attacked", "code in data"
    weights = tmp_path / f"weights{suffix}"
    weights.write_bytes(pickle.dumps({"model": Attack(attacked)}))
    attempt(kind, weights.name, lambda: read_weights(str(weights)), names=[weights.name])
    array = io.BytesIO()
    np.save(array, np.array([Attack(attacked)]), allow_pickle=True)
    (tmp_path / "x.index.npy").write_bytes(array.getvalue())
    digest = hashlib.sha256(array.getvalue()).hexdigest()
    shard = Shard(name="x.tar", samples=1, bytes=1, sha256="", index_sha256=digest)
    manifest = Manifest(kind="images", folder=str(tmp_path), shards=(shard,))
    attempt(kind, "index.npy", lambda: load_index(manifest, shard), names=["x.index.npy"])
    for url in (f"pipe:touch {attacked}", "python://x", f"file::pipe:touch {attacked}"):
        attempt(kind, url, functools.partial(storage.read_bytes, url), names=[url])
    assert not attacked.exists()
    COUNTS[kind].require_none_failed()


def test_the_code_has_no_door_for_it() -> None:
    found = [
        f"{path}: {line.strip()}"
        for folder in ("milan_pipeline", "stages", "workflows")
        for path in Path(folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if UNSAFE.search(line)
    ]
    assert not found
