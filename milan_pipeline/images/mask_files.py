"""The masks of images: PNGs of class numbers in another folder, under the images' paths."""

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from milan_pipeline.core.counting import counted, has
from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.images.file_faults import fault_of, is_link, shortened
from milan_pipeline.images.folder_walk import walk_folder
from milan_pipeline.images.found_files import FoundFiles
from milan_pipeline.images.spelling import in_one_form
from milan_pipeline.storage.retries import retried

logger = logging.getLogger(__name__)

ENDING = ".png"
BITS, KIND = 24, 25
"""Where a PNG says the bits and the kind of its pixels."""
GREY, PALETTE = 0, 3


class MaskFolder:
    """Finds the masks of images by the images' names below their own folder.

    Raises:
        MissingDataError: there is no such folder.
    """

    def __init__(self, folder: Path, images: Path) -> None:
        if not os.path.isdir(folder):  # noqa: PTH112 - false also where the name is too long
            raise MissingDataError(f"{folder} is no folder of masks; give one that has them")
        self.folder = folder
        self._is_beside = os.path.samefile(folder, images)  # noqa: PTH121
        self._names: dict[Path, list[str]] = {}

    def images_among(self, files: FoundFiles) -> FoundFiles:
        """Return those pictures that are no masks of others, as masks may lie beside their images.

        Raises:
            DataError: a picture would be its own mask.
        """
        if not self._is_beside:
            return files
        images = FoundFiles(file for file in files if not _is_png(file.name))
        masked = {_stem(name) for name in images.names}
        for file in files:
            if _is_png(file.name) and _stem(file.name) not in masked:
                raise self._its_own(file.name)
        return images

    def mask_of(self, name: str) -> tuple[Path, int]:
        """Return the mask of an image and its bytes.

        Args:
            name: of the image, below its folder.

        Raises:
            DataError: the image would be its own mask.
            MissingDataError: there is none.
            StorageError: it cannot be reached.
        """
        if self._is_beside and _is_png(name):
            raise self._its_own(name)
        path = self.folder / f"{_stem(name)}{ENDING}"
        try:
            status = _status(path)
        except FileNotFoundError as error:
            path, status = self._spelled_otherwise(path, error)
        except StorageError:
            raise
        except OSError as error:
            raise self._unusable(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise MissingDataError(f"{path} is no regular file, but should be a mask; replace it")
        return path, status.st_size

    def warn_of_others(self, used: Iterable[str]) -> None:
        """Name masks without an image: images may have been lost."""
        if self._is_beside:
            return
        masks = {str(self.folder / name) for name in walk_folder(self.folder).files.names}
        surplus = sorted(path for path in map(Path, masks.difference(used)) if _is_png(path.name))
        if surplus:
            logger.warning(
                "%s in %s %s no image (%s); check that none of the images is lost",
                *(counted(len(surplus), "masks"), self.folder, has(len(surplus))),
                shortened(surplus[0].name),
            )

    def _spelled_otherwise(self, path: Path, error: OSError) -> tuple[Path, os.stat_result]:
        """Return a mask that ends in `.PNG` or has another form of Unicode; else name the nearest.

        Raises:
            MissingDataError: there is none.
        """
        if is_link(path):
            raise MissingDataError(
                f"{path} is {fault_of(str(path), error)}, but its image is there; restore the mask"
            ) from error
        folder, stem = self._folder_of(path), in_one_form(path.stem)
        near = [name for name in self._listed(folder) if in_one_form(name).startswith(stem)]
        same = [name for name in near if _is_png(name) and in_one_form(_stem(name)) == stem]
        if same:
            found = folder / same[0]
            return found, _status(found)
        hint = f" (beside it is {shortened(near[0])})" if near else ""
        remedy = "add the mask, a PNG, under that name"
        if self.folder != path.parent and (self.folder / path.name).exists():
            hint = f" ({self.folder / path.name} does)"
            remedy = f"give the images' own folder, {path.parent.name}, in place of the one above"
        raise MissingDataError(
            f"{path} does not exist{hint}, but its image does; {remedy}"
        ) from error

    def _folder_of(self, path: Path) -> Path:
        """Return the folder of a mask, whose name may have another form of Unicode."""
        if path.parent.is_dir():
            return path.parent
        found = self.folder
        for part in path.parent.relative_to(self.folder).parts:
            alike = [n for n in self._listed(found) if in_one_form(n) == in_one_form(part)]
            found /= alike[0] if alike else part
        return found

    def _listed(self, folder: Path) -> list[str]:
        if folder not in self._names:
            self._names[folder] = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208
        return self._names[folder]

    def _its_own(self, name: str) -> DataError:
        return DataError(
            f"{self.folder / name} would be its own mask; give one folder of images "
            "and another of masks under the same names"
        )

    def _unusable(self, path: Path, error: OSError) -> StorageError:
        return StorageError(
            f"the mask {path} cannot be reached ({error.strerror}); give yourself the right to "
            "(chmod u+rx its folder), or repair it"
        )


def _status(path: Path) -> os.stat_result:
    return retried(path.stat, url=str(path), local=True)


def _is_png(name: str) -> bool:
    return name.lower().endswith(ENDING)


def _stem(name: str) -> str:
    """Return a path without the ending of its name."""
    folder, slash, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return f"{folder}{slash}{stem}"


def pixel_fault(png: bytes) -> str | None:
    """Say why the pixels of a PNG are not one 8-bit number each, and what helps; None if they are.

    A palette does not matter: its numbers count.

    Args:
        png: the file, or its first bytes, with the whole of its header.

    Returns:
        The end of a sentence that begins with the mask's name.
    """
    kind, bits = png[KIND], png[BITS]
    if kind == PALETTE or (kind == GREY and bits == 8):
        return None
    if kind == GREY:
        return f"has {bits} bits a pixel; save it with 8 bits"
    return (
        "has colours or alpha and not one 8-bit number for each pixel; write class numbers as "
        "grey or palette PNG"
    )
