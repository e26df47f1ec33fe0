"""The pixels of views, from image shards: those that the teacher saw, or none."""

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.errors import MissingDataError
from milan_pipeline.examples import student_view
from milan_pipeline.images import digest
from milan_pipeline.manifest import load_index, load_manifest
from milan_pipeline.report.target_rows import TargetRows
from milan_pipeline.shards import SampleReader


class ViewSource:
    """Cuts views out of image shards."""

    def __init__(self, images: str) -> None:
        """Read the manifest.

        Raises:
            MissingDataError: there is none.
            DataError: it is damaged.
        """
        self._manifest = load_manifest(images, kind="images")
        self._shards = {shard.stem: shard for shard in self._manifest.shards}
        self._places: dict[str, dict[bytes, np.void]] = {}

    def views(self, rows: TargetRows, size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the view (size, size, 3) of each target, as its teacher saw it.

        Raises:
            MissingDataError: there is no such image here.
            MismatchError: its bytes are not those that the teacher saw.
            DataError: it cannot be decoded, or the stored box is not inside it.
        """
        with contextlib.closing(SampleReader()) as reader:
            for number in range(len(rows)):
                key = rows.key[number]
                data = self._read(reader, rows.source[number], key)
                view_CSS = student_view(
                    data, rows.records[number], image_size=size, digest=digest(data), key=key
                )
                yield np.ascontiguousarray(view_CSS.permute(1, 2, 0).numpy())

    def _read(self, reader: SampleReader, source: str, key: str) -> bytes:
        shard = self._shards.get(source)
        if shard is not None and source not in self._places:
            table = load_index(self._manifest, shard)
            self._places[source] = {bytes(row["key"]): row for row in table}
        row = self._places.get(source, {}).get(key.encode())
        if shard is None or row is None:
            raise MissingDataError(
                f"--images {self._manifest.folder} has no image {key!r} in {source}.tar; give the "
                "folder that extract-targets read"
            )
        return reader.read(
            self._manifest.url_of(shard), int(row["offset"]), int(row["length"]), int(row["xxh3"])
        )
