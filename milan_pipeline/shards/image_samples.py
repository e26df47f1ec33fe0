"""Images of files or tables -> samples of an image shard, bytes unchanged."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from milan_pipeline.errors import BadImageError, DataError, StorageError
from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.decode import probe_depth, probe_header
from milan_pipeline.images.formats import IMAGE_EXTENSIONS
from milan_pipeline.images.mask_files import pixel_fault
from milan_pipeline.images.orientation import SWAPS_SIDES, orientation, upright
from milan_pipeline.images.source_files import SourceFile
from milan_pipeline.shards.writer import Sample
from milan_pipeline.storage.retries import retried


def samples_of(
    files: Iterable[SourceFile], skipped: list[Skipped], *, turn: bool = False
) -> Iterator[Sample]:
    """Read images, their classes, captions and masks.

    Args:
        files: to read.
        skipped: here those are added that are no image by their first bytes.
        turn: whether images are turned as their EXIF says.

    Raises:
        DataError: a mask does not fit its image.
        StorageError: a file cannot be read.
    """
    for file in files:
        try:
            if file.fault is not None:
                raise BadImageError(f"it is {file.fault}")
            given = _image(file)
            data = upright(given) if turn else given
            image_format, *size = probe_header(data)
        except BadImageError as error:
            where = "" if file.rows is None else f"{file.rows.where(file.row)}: "
            reason = f"{where}{error}"
            skipped.append({"key": file.key, "file": file.path.name, "reason": reason})
            continue
        probe_depth(data, file.key)
        suffix = file.path.suffix.lower().lstrip(".")
        # A file may have any name; readers recognise an image by its extension.
        extension = suffix if suffix in IMAGE_EXTENSIONS else image_format.lower()
        members = {extension: data}
        if file.label is not None:
            members["cls"] = str(file.label).encode()
        if file.rows is not None and (caption := file.rows.caption(file.row)):
            members["txt"] = caption
        if file.mask is not None:
            members["mask.png"] = _mask(file.mask, size, of=given, turned=turn)
        yield Sample(file.key, members)


def _image(file: SourceFile) -> bytes:
    """Read an image from its table, or from its file."""
    if file.rows is None:
        return _read(file.path)
    data = file.rows.image(file.row)
    if data is not None:
        return data
    file.rows.require_below(file.path)
    if not file.path.is_file():
        raise BadImageError("it is a row without an image")
    return _read(file.path)


def _mask(path: Path, size: list[int], *, of: bytes, turned: bool) -> bytes:
    """Read a mask, which must be a PNG of class numbers, as large as its image.

    Args:
        path: of the mask.
        size: width and height of the image as it is packed.
        of: the image's own file.
        turned: whether images are turned as their EXIF says.
    """
    data, remedy = _read(path), "replace it"
    try:
        kind, *own = probe_header(data)
        if kind != "PNG":
            raise BadImageError(f"it is {kind}, which may change class numbers, and masks are PNGs")
        if own == size[::-1] and orientation(of) in SWAPS_SIDES:
            remedy = "turn it, too" if turned else "--exif apply turns the image as its EXIF says"
        if own != size:
            raise BadImageError(f"it is no PNG of {size[0]} x {size[1]} pixels, as its image is")
    except BadImageError as error:
        raise DataError(f"{path} cannot be a mask ({error}); {remedy}") from error
    if fault := pixel_fault(data):
        raise DataError(f"the mask {path} {fault}")
    return data


def _read(path: Path) -> bytes:
    try:
        return retried(path.read_bytes, url=str(path), local=True)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror}); repair or remove it"
        ) from error
