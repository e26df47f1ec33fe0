"""A Pillow image becomes what `probe` and `finetune` score, in the numbers that a model takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.errors import BadImageError, ConfigError, MissingDataError
from milan_pipeline.evaluate.evaluation_view import evaluation_view
from milan_pipeline.evaluate.image_transform import image_transform

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]


@pytest.fixture
def photo() -> Image.Image:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


def describe(folder: Path, **more: object) -> str:
    """Write what describes an encoder of 16 pixels; return the path of its weights."""
    timm = {"model_name": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 8}
    document = {"timm": timm, "mean": MEAN, "std": STD, **more}
    (folder / "encoder.json").write_text(json.dumps(document))
    return str(folder / "encoder.safetensors")


def test_it_cuts_and_normalises(photo: Image.Image, tmp_path: Path) -> None:
    weights = describe(tmp_path)
    view_CSS = evaluation_view(16, 0.875)(photo)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for place in (weights, tmp_path):
        found = image_transform(place)(photo)
        assert torch.allclose(found, (view_CSS / 255 - mean) / std, atol=1e-6)
    assert torch.equal(image_transform(weights, normalise=False)(photo), view_CSS)


def test_a_classifier_has_its_own_crop(photo: Image.Image, tmp_path: Path) -> None:
    weights = describe(tmp_path, crop_pct=1.0)
    assert torch.equal(
        image_transform(weights, normalise=False)(photo), evaluation_view(16, 1.0)(photo)
    )
    told = image_transform(weights, normalise=False, crop_pct=0.5)(photo)
    assert torch.equal(told, evaluation_view(16, 0.5)(photo))


def test_any_encoder_and_any_mode(photo: Image.Image) -> None:
    found = image_transform(load_encoder("pixels:24"))(photo.convert("L"))
    assert found.shape == (3, 24, 24)
    assert 0 <= found.min() <= found.max() <= 1  # its mean is 0 and its std 1


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_of_16_bits_it_shows_the_high_byte(photo: Image.Image, dtype: type) -> None:
    """As `decode_rgb` does: Pillow's own conversion makes all above 255 white."""
    grey = np.asarray(photo.convert("L"))
    transform = image_transform(load_encoder("pixels:24"), normalise=False)
    deep = Image.fromarray(grey.astype(dtype) * dtype(257))
    assert deep.mode.startswith("I")
    assert torch.equal(transform(deep), transform(Image.fromarray(grey)))


def test_what_shows_nothing_is_refused() -> None:
    transform = image_transform(load_encoder("pixels:24"))
    for thing in (np.zeros((4, 4, 3), np.uint8), "photo.jpg"):
        with pytest.raises(ConfigError, match=r"takes an image of Pillow and not (ndarray|str);"):
            transform(thing)  # type: ignore[arg-type]
    with pytest.raises(BadImageError, match="0 x 5 pixels shows nothing"):
        transform(Image.new("RGB", (0, 5)))


def test_without_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"encoder\.json does not exist"):
        image_transform(tmp_path)
