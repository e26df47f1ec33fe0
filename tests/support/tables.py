"""The same pictures in each form that tables have: as people have them, and as small as can be."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rows_of(tree: Path) -> tuple[list[str], list[str]]:
    """Return the images of a class tree below it, in order, and their classes."""
    paths = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.jpg"))
    return paths, [path.partition("/")[0] for path in paths]


def write_csv(tree: Path, folder: Path) -> Path:
    paths, classes = rows_of(tree)
    lines = ["file_name,label", *(f"{p},{c}" for p, c in zip(paths, classes, strict=True))]
    return _text(folder / "list.csv", "\n".join(lines))


def write_parquet_list(tree: Path, folder: Path) -> Path:
    paths, classes = rows_of(tree)
    table = pa.table({"path": paths, "label": pa.array(classes).dictionary_encode()})
    return _parquet(folder / "list.parquet", table)


def write_hub_parquet(tree: Path, folder: Path) -> Path:
    """Two files of one split, with several row groups."""
    paths, classes = rows_of(tree)
    names = sorted(set(classes))
    half = len(paths) // 2
    for number, part in enumerate((slice(None, half), slice(half, None))):
        images = [_cell(tree, path) for path in paths[part]]
        labels = [names.index(name) for name in classes[part]]
        table = hub_table(images, labels, names)
        _parquet(folder / f"train-0000{number}-of-00002.parquet", table, row_group_size=5)
    return folder


def write_saved(tree: Path, folder: Path) -> Path:
    """What `Dataset.save_to_disk` writes."""
    paths, classes = rows_of(tree)
    names = sorted(set(classes))
    labels = [names.index(name) for name in classes]
    table = hub_table([_cell(tree, path) for path in paths], labels, names)
    return save_to_disk(folder, table)


def save_to_disk(folder: Path, table: pa.Table, batch: int = 7) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=batch)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    _text(folder / "dataset_info.json", json.dumps({"features": features}))
    _text(folder / "state.json", json.dumps({"_data_files": [{"filename": name}]}))
    return folder


def hub_table(
    images: Sequence[object], labels: Sequence[int], names: Sequence[str], **others: object
) -> pa.Table:
    """Return a table with the features of `datasets`."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    columns = {"image": pa.array(images, IMAGE), "label": pa.array(labels, pa.int64()), **others}
    return pa.table(columns).replace_schema_metadata(metadata)


def write_img2dataset(
    images: Sequence[tuple[bytes, str]], folder: Path, *, form: str, failed: int = 1
) -> Path:
    """Write shards of two images, with their captions and one failed download each."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(-(-len(images) // 2)):
        name, part = f"{shard:05d}", images[2 * shard : 2 * shard + 2]
        keys = [f"{name}{number:04d}" for number in range(len(part) + failed)]
        members = {
            f"{key}.{ending}": data
            for key, (image, text) in zip(keys, part, strict=False)
            for ending, data in (("jpg", image), ("txt", text.encode()), ("json", b"{}"))
        }
        lost = ["failed_to_download"] * failed
        table = pa.table(
            {
                "url": [f"http://example.invalid/{key}" for key in keys],
                "caption": [text for _, text in part] + ["lost"] * failed,
                "key": keys,
                "status": ["success"] * len(part) + lost,
                "error_message": [None] * len(part) + ["HTTP Error 404"] * failed,
            }
        )
        order = -1 if form == "webdataset" else 1  # rows come as the downloads end
        _parquet(folder / f"{name}.parquet", table.take(list(range(len(keys)))[::order]))
        _text(folder / f"{name}_stats.json", "{}")
        if form == "webdataset":
            _tar(folder / f"{name}.tar", members)
        else:
            for member, data in members.items():
                (folder / name).mkdir(exist_ok=True)
                (folder / name / member).write_bytes(data)
    return folder


FORMS = {
    "csv": write_csv,
    "parquet": write_parquet_list,
    "hub": write_hub_parquet,
    "datasets": write_saved,
}


def _cell(tree: Path, path: str) -> dict[str, object]:
    return {"bytes": (tree / path).read_bytes(), "path": path}


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def _parquet(path: Path, table: pa.Table, **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
