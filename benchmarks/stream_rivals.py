"""The readers with which `benchmarks.stream` compares ours; each reads the same JPEGs once."""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
import torch
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from benchmarks.stream_data import World
from milan_pipeline.images.views import Box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def by_simplejpeg(data: bytes) -> torch.Tensor:
    """Decode to (3, H, W) uint8, laid out channels-last."""
    return torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)


def by_torchvision(data: bytes) -> torch.Tensor:
    """Decode to (3, H, W) uint8, laid out channels-last."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: torch.Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    return pixels


def by_pillow(data: bytes) -> torch.Tensor:
    """Decode to (3, H, W) uint8, laid out channels-last."""
    return torch.from_numpy(np.array(Image.open(BytesIO(data)).convert("RGB"))).permute(2, 0, 1)


DECODERS: dict[str, Callable[[bytes], torch.Tensor]] = {
    "simplejpeg": by_simplejpeg,
    "torchvision.io": by_torchvision,
    "pillow": by_pillow,
}


def floor(jpegs: list[bytes], boxes: list[Box], decoder: str, size: int) -> int:
    """Decode, crop and resize (uint8 tensors, bicubic, antialiased), and nothing else."""
    decode = DECODERS[decoder]
    for data, box in zip(jpegs, boxes, strict=True):
        crop_CHW = F.crop(decode(data), box.top, box.left, box.height, box.width)
        F.resize(crop_CHW, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return len(jpegs)


def image_folder(world: World, *, size: int, batch: int) -> Callable[[], int]:
    """Prepare torchvision's `ImageFolder` with the published augmentation."""
    steps = [
        transforms.RandomResizedCrop(
            size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
        ),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    dataset = ImageFolder(str(world.folder), transforms.Compose(steps))
    loader = DataLoader(dataset, batch_size=batch, shuffle=True)
    return lambda: sum(len(images) for images, _ in loader)


def stock_webdataset(world: World, *, size: int, batch: int) -> Callable[[], int]:
    """Prepare webdataset as in its manual: two tars a shard, joined by key."""
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def example(sample: dict[str, Any]) -> tuple[torch.Tensor, NDArray[Any], NDArray[Any]]:
        record = sample["target.npy"]
        top, left, height, width = (int(value) for value in record["box"])
        crop = sample["jpg"].crop((left, top, left + width, top + height))
        crop = crop.resize((size, size), Image.Resampling.BICUBIC)
        if record["flip"]:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return finish(crop), record["codes"], record["scale"]

    def joined() -> Iterator[dict[str, Any]]:
        images, targets = (
            wds.WebDataset(urls, shardshuffle=False).decode("pil")
            for urls in (world.image_tars, world.target_tars)
        )
        for image, target in zip(images, targets, strict=True):
            if image["__key__"] != target["__key__"]:
                raise ValueError(f"{image['__key__']!r} met {target['__key__']!r}")
            yield image | target

    def run() -> int:
        pipeline = wds.DataPipeline(joined, wds.map(example), wds.batched(batch))
        loader = wds.WebLoader(pipeline, batch_size=None)
        return sum(len(images) for images, _, _ in loader)

    return run
