"""The plain extractor with which `benchmarks.extract` compares ours.

Pillow and torchvision in a DataLoader, the teacher, int8 codes by torch, and each batch written as
one chunk of each array of one Zarr group, with the checksum that ours have and no compression.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
import zarr
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F
from zarr.codecs import Crc32cCodec

from benchmarks.extract_data import BATCH, SIZE
from milan_pipeline.extraction.job import TargetTeacher

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SCALE, RATIO = [0.2, 1.0], [3 / 4, 4 / 3]


class PhotoFolder(Dataset[tuple[Any, ...]]):
    """A random view of each file of a folder, as CLIP takes it, and what is stored beside it."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.jpg"))
        self._finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        path = self._paths[number]
        data = path.read_bytes()
        image = Image.open(BytesIO(data)).convert("RGB")
        box = transforms.RandomResizedCrop.get_params(image, SCALE, RATIO)
        flip = bool(torch.rand(()) < 0.5)
        view = F.resized_crop(image, *box, [SIZE, SIZE], transforms.InterpolationMode.BICUBIC)
        view = F.hflip(view) if flip else view
        digest = np.array([xxhash.xxh3_64_intdigest(data)], np.uint64)
        fields = np.array(box, np.float32), flip, np.array(image.size[::-1], np.int32), digest
        return self._finish(view), path.stem, *fields


def plain_extract(folder: Path, teacher: TargetTeacher, store: Path) -> int:
    """Extract a folder of JPEGs; return the number of images."""
    photos = PhotoFolder(folder)
    arrays = _create_arrays(store, len(photos), teacher)
    start = 0
    loader = DataLoader(photos, batch_size=BATCH)
    for views, keys, box, flip, size, digest in loader:
        targets, prior = teacher(views)
        scale = (targets.abs().amax(-1) / 127).half()
        codes = (targets / scale.float().unsqueeze(-1)).round().clamp(-127, 127).to(torch.int8)
        values: dict[str, torch.Tensor | NDArray[Any]] = {
            "codes": codes,
            "scale": scale,
            "prior": prior,
            "box": box,
            "flip": flip,
            "size": size,
            "digest": digest[:, 0],
            "key": np.array(keys, dtype=object),
        }
        for name, value in values.items():
            arrays[name][start : start + len(views)] = np.asarray(value)
        start += len(views)
    return start


def _create_arrays(store: Path, count: int, teacher: TargetTeacher) -> dict[str, zarr.Array[Any]]:
    """Create one array a field, in chunks of a batch."""
    group = zarr.create_group(str(store))
    patches = teacher.grid[0] * teacher.grid[1]
    rows: dict[str, tuple[tuple[int, ...], Any]] = {
        "codes": ((1 + patches, teacher.width), "int8"),
        "scale": ((1 + patches,), "float16"),
        "prior": ((patches,), "float32"),
        "box": ((4,), "float32"),
        "flip": ((), "bool"),
        "size": ((2,), "int32"),
        "digest": ((), "uint64"),
        "key": ((), str),
    }
    return {
        name: group.create_array(
            name,
            shape=(count, *shape),
            chunks=(BATCH, *shape),
            dtype=dtype,
            compressors=[Crc32cCodec()],
        )
        for name, (shape, dtype) in rows.items()
    }
