"""A reader of every format, written from docs/formats.md alone: none of this project's code.

It is short where the formats are, and refuses what the page says is to be refused.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
import zarr

IMAGES = ("jpg", "jpeg", "png", "webp")
SMALLEST = np.float32(1.1754944e-38)
CODE_TYPES = {"float16": "<f2", "bfloat16": "<u2", "int8": "i1", "joint": "u1"}
CODEC_TYPES = {
    "mean": "<f2", "cls_basis": "<f2", "basis": "<f2", "position": "<f2", "row": "<i4",
    "byte": "<i4", "column": "<i4", "scale": "<f4", "level": "<f4", "centre": "<f2",
    "kind_basis": "<f2", "predict": "<f2", "spread": "<f4", "tier": "<i4", "tier_bytes": "<i4",
    "tier_place": "<i4", "tier_level": "<f4",
}  # fmt: skip
SAFE_TYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8", "U8": "u1"}


class Rows(NamedTuple):
    """Targets of some samples: tokens (n, N, D) and prior (n, L) decoded, the rest as stored."""

    key: list[str]
    tokens: Any
    prior: Any
    box: Any
    flip: Any
    digest: Any


def json_hash(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    stated = document.pop("sha256")
    assert stated == json_hash(document)
    assert (document["format_version"], document["kind"], document["complete"]) == (1, kind, True)
    return document


def read_index(folder: Path, shard: dict[str, Any]) -> list[tuple[str, int, int, int]]:
    data = (folder / (shard["name"].removesuffix(".tar") + ".index.npy")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == shard["index_sha256"]
    table = np.load(io.BytesIO(data), allow_pickle=False)
    width = table.dtype["key"].itemsize
    where = {name: table.dtype.fields[name][1] for name in table.dtype.names}
    wanted = {"key": 0, "offset": width, "length": width + 8, "xxh3": width + 16}
    assert {name: where[name] for name in wanted} == wanted
    assert where.get("label", width + 24) == width + 24
    rows = [(key.decode(), *map(int, rest)) for key, *rest in table[list(wanted)].tolist()]
    assert len(rows) == shard["samples"]
    return rows


def read_indexed(folder: Path, shard: dict[str, Any]) -> dict[str, bytes]:
    """Read a shard's samples by the places in its index."""
    tar, found = (folder / shard["name"]).read_bytes(), {}
    for key, offset, length, digest in read_index(folder, shard):
        found[key] = tar[offset : offset + length]
        assert xxhash.xxh3_64_intdigest(found[key]) == digest
    return found


def read_members(folder: Path, shard: dict[str, Any]) -> dict[str, dict[str, bytes]]:
    """Read a shard's samples by the names of its members."""
    tar = (folder / shard["name"]).read_bytes()
    assert (len(tar), hashlib.sha256(tar).hexdigest()) == (shard["bytes"], shard["sha256"])
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            folders, _, name = member.name.rpartition("/")
            first, _, extension = name.partition(".")
            key = f"{folders}/{first}" if folders else first
            extracted = archive.extractfile(member)
            assert extracted is not None
            samples.setdefault(key, {})[extension.lower()] = extracted.read()
    return samples


def image_of(members: dict[str, bytes]) -> bytes:
    return next(members[extension] for extension in IMAGES if extension in members)


def read_root(store: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(zarr.open_group(str(store), mode="r").attrs)
    assert attributes["format_version"] == 1
    assert attributes["identity_hash"] == json_hash(attributes["identity"])
    identity: dict[str, Any] = attributes["identity"]
    return identity


def finished_units(store: Path) -> dict[tuple[int, str], dict[str, Any]]:
    """Return the marks of the finished units, every object of which is there and as written."""
    identity_hash, marks = json_hash(read_root(store)), {}
    for path in sorted(store.glob("done/view-*/*.json")):
        mark = json.loads(path.read_text())
        unit = store / f"view-{mark['view']:02d}" / mark["shard"].removesuffix(".tar")
        if mark["identity_hash"] == identity_hash:
            for name, digest in mark["objects"].items():
                assert xxhash.xxh3_128_hexdigest((unit / name).read_bytes()) == digest
            marks[mark["view"], unit.name] = mark
    return marks


def read_unit(store: Path, view: int, shard: str) -> Rows:
    group = zarr.open_group(str(store / f"view-{view:02d}" / shard), mode="r")
    arrays: dict[str, Any] = {name: np.asarray(array[:]) for name, array in group.arrays()}
    codec, fitted = read_root(store)["codec"], {}
    if codec["name"] == "joint":
        stored: Any = zarr.open_group(str(store / "codec"), mode="r")
        fitted = {name: np.asarray(stored[name][:]) for name in CODEC_TYPES}
    tokens = decoded(codec, fitted, arrays["codes"], arrays.get("scale"))
    return Rows(
        [str(key) for key in arrays["key"]], tokens, decoded_prior(arrays["prior"]),
        arrays["box"], arrays["flip"], arrays["digest"],
    )  # fmt: skip


def read_target_shard(folder: Path, shard: dict[str, Any]) -> Rows:
    """Read a target shard through its index."""
    manifest = read_manifest(folder, "targets")
    identity = manifest["identity"]
    assert manifest["identity_hash"] == json_hash(identity)
    layout = record_type(identity)
    found = read_indexed(folder, shard)
    records = np.stack([np.frombuffer(data[-layout.itemsize :], layout) for data in found.values()])
    return rows_of(folder, identity, list(found), records[:, 0])


def read_target_members(folder: Path, shard: dict[str, Any]) -> Rows:
    """Read a target shard as tar, without its index."""
    keys: list[str] = []
    blocks = []
    for key, members in read_members(folder, shard).items():
        own = json.loads(members["keys.json"]) if "keys.json" in members else [key]
        keys += own
        data = members["targets.npy" if "keys.json" in members else "target.npy"]
        blocks.append(np.atleast_1d(np.load(io.BytesIO(data), allow_pickle=False)))
    identity = read_manifest(folder, "targets")["identity"]
    records = np.concatenate(blocks)
    assert records.dtype == record_type(identity)
    return rows_of(folder, identity, keys, records)


def record_type(identity: dict[str, Any]) -> "np.dtype[Any]":
    """Lay out a record by the table: field after field, without gaps."""
    rows, columns = identity["teacher"]["grid"]
    patches, codec = rows * columns, identity["codec"]
    shape = (1 + patches, identity["teacher"]["width"])
    if codec["name"] == "joint":
        shape = (1, int((1 + patches) * codec["bytes"] + 1e-6))
    prior = "u1" if codec["name"] == "joint" else "<f4"
    fields: list[Any] = [("box", "<f4", (4,)), ("flip", "?"), ("digest", "<u8")]
    fields.append(("prior", prior, (patches,)))
    if codec["name"] == "int8":
        fields.append(("scale", "<f2", (1 + patches,)))
    fields.append(("codes", CODE_TYPES[codec["name"]], shape))
    layout = np.dtype(fields)
    assert layout.fields is not None
    assert [layout.fields[name][1] for name in ("flip", "digest", "prior")] == [16, 17, 25]
    return layout


def rows_of(folder: Path, identity: dict[str, Any], keys: list[str], records: Any) -> Rows:
    codec, fitted = identity["codec"], {}
    if codec["name"] == "joint":
        fitted = read_safetensors(folder / "codec.safetensors")
    scale = records["scale"] if "scale" in records.dtype.names else None
    tokens = decoded(codec, fitted, records["codes"], scale)
    return Rows(
        keys, tokens, decoded_prior(records["prior"]), records["box"], records["flip"],
        records["digest"],
    )  # fmt: skip


def decoded(codec: dict[str, Any], fitted: dict[str, Any], codes: Any, scale: Any) -> Any:
    if codec["name"] == "float16":
        return codes.astype("<f4")
    if codec["name"] == "bfloat16":
        return (codes.astype("<u4") << 16).view("<f4")
    if codec["name"] == "int8":
        return codes.astype("<f4") * scale.astype("<f4")[..., None]
    assert codec["arrays"] == codec_hash(fitted)
    f = {
        name: fitted[name] if kind == "<i4" else fitted[name].astype("<f4")
        for name, kind in CODEC_TYPES.items()
    }
    return np.stack([_image(record, f) for record in codes[:, 0]])


def _image(record: Any, f: dict[str, Any]) -> Any:
    """Sum up both layers as the page says, value by value."""
    of_cls, components = len(f["cls_basis"]), len(f["basis"])
    value = np.zeros(of_cls + len(f["position"]) * components, "<f4")
    for j, row in enumerate(f["row"]):
        value[row] = f["level"][f["column"][j], record[f["byte"][j]]] * f["scale"][j]
    cls, grid = value[:of_cls], value[of_cls:].reshape(-1, components)
    tokens = f["mean"].copy()
    tokens[0] += cls @ f["cls_basis"]
    tokens[1:] += f["position"].T @ grid @ f["basis"]
    own = record[f["byte"].max() + 1 :]
    at = patches = len(tokens) - 1
    for patch, number in enumerate(own[:patches]):
        s, e = divmod(int(number), f["centre"].shape[1])
        u = f["tier"][s, e]
        tokens[1 + patch] += f["centre"][s, e] + cls[: len(f["predict"][s])] @ f["predict"][s]
        for q, place in enumerate(f["tier_place"][u]):
            if f["tier_level"][u, q].any():
                level = f["tier_level"][u, q, own[at + place]]
                tokens[1 + patch] += level * f["spread"][s, q] * f["kind_basis"][s, q]
        at += f["tier_bytes"][u]
    return tokens


def codec_hash(fitted: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, kind in CODEC_TYPES.items():
        digest.update(f"{name} {kind} {fitted[name].shape} ".encode())
        digest.update(fitted[name].astype(kind).tobytes())
    return digest.hexdigest()


def decoded_prior(stored: Any) -> Any:
    if stored.dtype == np.uint8:
        return (2 ** (-stored.astype("f8") / 8)).astype("f4")
    return np.maximum(stored, SMALLEST)


def read_safetensors(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        values = np.frombuffer(body[slice(*entry["data_offsets"])], SAFE_TYPES[entry["dtype"]])
        found[name] = values.reshape(entry["shape"])
    return found


def whole_checkpoint(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a checkpoint's tensors by file, if it is whole."""
    hashes = json.loads((folder / "sha256.json").read_text())
    for name, stated in hashes.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == stated
    return {name: read_safetensors(folder / name) for name in hashes}
