"""Cached features: read back as written, made again when damaged, never mixed up."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.encoders.frozen import PixelEncoder
from milan_pipeline.errors import ConfigError, DataError, InterruptedRunError
from milan_pipeline.evaluate.probe.feature_cache import FeatureCache, View, features_url, is_cached
from milan_pipeline.shards.manifest import load_manifest
from tests.support.labelled import shards


class TokenEncoder:
    """Two features of the CLS token, and two of the mean, told apart by their sign."""

    name, image_size = "tokens", 4
    mean, std = [0.0] * 3, [1.0] * 3
    device = torch.device("cpu")

    def __init__(self, *, with_cls=True):
        self.images = 0
        self._with_cls = with_cls

    def features(self, pixels_BCHW, *, pool="cls"):
        self.images += len(pixels_BCHW)
        if pool != "mean" and not self._with_cls:
            raise ConfigError("no CLS token")
        cls_BF = pixels_BCHW.flatten(2).float().mean(dim=2)[:, :2] + 1
        return {"cls": cls_BF, "mean": -cls_BF, "both": torch.cat([cls_BF, -cls_BF], dim=1)}[pool]


@pytest.fixture
def manifest(tmp_path):
    return load_manifest(shards(tmp_path / "images", 12, seed=1, bad={7}), kind="images")


def cache_for(tmp_path, encoder, **changes) -> FeatureCache:
    values: dict[str, Any] = {"identity": {"weights": "w"}, "stop": StopRequest()} | changes
    return FeatureCache(
        folder=str(tmp_path / "cache"),
        encoder=lambda: encoder,
        batch_size=5,
        workers=0,
        **values,
    )


def test_all_pools_come_from_one_pass_and_from_the_folder(tmp_path, manifest):
    encoder = TokenEncoder()
    made = cache_for(tmp_path, encoder).get(manifest, View(), what="made")
    assert encoder.images == 11 + 2  # a black image is asked twice which pools there are
    read = cache_for(tmp_path, None).get(manifest, View(), what="read")
    for found in (made, read):
        assert found.pool("cls").shape == (11, 2)
        np.testing.assert_array_equal(found.pool("mean"), -found.pool("cls"))
        np.testing.assert_array_equal(found.pool("both"), found.stored_NF)
        assert found.choices == ("cls", "mean", "both")
        assert found.labels_N.tolist() == [n % 3 for n in range(12) if n != 7]
        assert [row["key"] for row in found.bad] == ["0007"]
    np.testing.assert_array_equal(made.stored_NF, read.stored_NF)


@pytest.mark.parametrize("suffix", ["safetensors", "sha256"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_damaged_features_are_made_again(tmp_path, manifest, suffix, damage):
    encoder = TokenEncoder()
    first = cache_for(tmp_path, encoder).get(manifest, View(), what="first")
    (path,) = (tmp_path / "cache").glob(f"*.{suffix}")
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(flipped if damage == "changed" else whole[:-20])
    encoder.images = 0
    again = cache_for(tmp_path, encoder).get(manifest, View(), what="again")
    assert encoder.images == 11 + 2
    np.testing.assert_array_equal(again.stored_NF, first.stored_NF)
    assert path.read_bytes() == whole


def test_other_encoders_images_and_views_have_other_places(tmp_path, manifest):
    other = dataclasses.replace(manifest, shards=manifest.shards[:1])
    urls = [
        features_url("f", identity, images, view)
        for identity, images, view in (
            ({"weights": "a"}, manifest, View()),
            ({"weights": "b"}, manifest, View()),
            ({"weights": "a"}, other, View()),
            ({"weights": "a"}, manifest, View(crop_pct=1.0)),
            ({"weights": "a"}, manifest, View(number=0)),
            ({"weights": "a"}, manifest, View(number=1)),
            ({"weights": "a"}, manifest, View(number=1, seed=1)),
        )
    ]
    assert len(set(urls)) == len(urls)
    assert features_url("f", {"weights": "a"}, manifest, View(seed=1)) == urls[0]
    assert not is_cached(str(tmp_path / "f"))


def test_random_views_differ_and_repeat(tmp_path, manifest):
    cache = cache_for(tmp_path, PixelEncoder(4))
    central = cache.get(manifest, View(), what="central")
    views = [cache.get(manifest, View(number=n), what="view") for n in (0, 1)]
    for view in views:
        np.testing.assert_array_equal(view.labels_N, central.labels_N)
        assert not np.array_equal(view.stored_NF, central.stored_NF)
    assert not np.array_equal(views[0].stored_NF, views[1].stored_NF)
    again = cache_for(tmp_path / "again", PixelEncoder(4)).get(manifest, View(number=1), what="v")
    np.testing.assert_array_equal(again.stored_NF, views[1].stored_NF)


def test_pixels_are_the_same_in_every_pool(tmp_path, manifest):
    found = cache_for(tmp_path, PixelEncoder(4)).get(manifest, View(), what="pixels")
    assert found.choices == ("cls",)
    for pool in ("cls", "mean", "both"):
        assert found.pool(pool).shape == (11, 48)


def test_an_encoder_without_cls_has_its_mean(tmp_path, manifest):
    found = cache_for(tmp_path, TokenEncoder(with_cls=False)).get(manifest, View(), what="mean")
    assert found.choices == ("mean",)
    assert (found.pool("mean") < 0).all()
    with pytest.raises(ConfigError, match="no CLS token for --pool both; give --pool mean"):
        found.pool("both")


def test_unlabelled_images_are_refused_and_leave_nothing(tmp_path):
    plain = load_manifest(shards(tmp_path / "plain", 6, seed=1, labelled=False), kind="images")
    with pytest.raises(DataError, match=r"'0000' of images-0.tar has no class number"):
        cache_for(tmp_path, TokenEncoder()).get(plain, View(), what="plain")
    assert not Path(tmp_path / "cache").exists()


def test_a_stop_is_heeded_between_images(tmp_path, manifest):
    stop = StopRequest()
    stop.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError, match="features of whole sets are kept"):
        cache_for(tmp_path, TokenEncoder(), stop=stop).get(manifest, View(), what="stopped")
