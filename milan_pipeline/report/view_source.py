"""The pixels of views, from image shards: those that the teacher saw, or none."""

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.crops import view_pixels
from milan_pipeline.errors import MismatchError, MissingDataError
from milan_pipeline.images import decode_rgb, digest
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
        self._places: dict[str, dict[bytes, NDArray[np.void]]] = {}

    def views(self, rows: TargetRows, size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the view (size, size, 3) of each target, as its teacher saw it.

        Raises:
            MissingDataError: there is no such image here.
            MismatchError: its bytes are not those that the teacher saw.
            BadImageError: it cannot be decoded.
        """
        with contextlib.closing(SampleReader()) as reader:
            for number in range(len(rows)):
                data = self._read(reader, rows.source[number], rows.key[number])
                if digest(data) != rows.digest_n[number]:
                    raise MismatchError(
                        f"--images {self._manifest.folder}: the image {rows.key[number]!r} of "
                        f"{rows.source[number]}.tar is not the one that the targets were made of; "
                        "give the folder that extract-targets read"
                    )
                pixels = view_pixels(decode_rgb(data), rows.box_n[number], size)
                yield np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

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
