"""Extracts features of labelled shards once and keeps them in a folder: CLS and mean in one pass.

A cached set is `NAME.safetensors` and `NAME.sha256`, which is written after it. A set without its
right hash is made again. The name is a hash of all that the features depend on: encoder, weights,
images, view.

Legend: N samples, F features.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from milan_pipeline import storage
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.schema import parsed
from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.evaluate.evaluation_view import CROP_PCT
from milan_pipeline.evaluate.per_image import names_txt
from milan_pipeline.evaluate.probe.features import (
    Features,
    Labels,
    Show,
    evaluated,
    extract_features,
)
from milan_pipeline.images.budget import LedgerRow
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.views import random_resized_crop
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.labels import Label, class_number, require_label
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.sequential import image_member, iterate_shard

FORMAT = 2
CROP_SCALE = (0.08, 1.0)
"""Bounds of a random view's share of the image, as in the linear protocols of MAE and MILAN."""


class _Note(TypedDict):
    pools: list[str]
    bad: list[LedgerRow]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """An encoder's features of a set of labelled images.

    Attributes:
        stored_NF: all kinds of features, side by side; `pool` returns one kind.
        labels_N: class numbers, int64.
        pools: the kinds of features: "cls" and "mean"; "mean" alone where the encoder
            has no CLS token; "any" where it has no tokens (`pixels`).
        bad: images that could not be read, `{shard, key, reason}`.
        names: of the others, as `per_image.names_txt` has them.
    """

    stored_NF: Features
    labels_N: Labels
    pools: tuple[str, ...]
    bad: tuple[LedgerRow, ...]
    names: bytes

    @property
    def are_alike(self) -> bool:
        """Whether two or more images have the same features but for rounding; 1,000 are looked at.

        Then the encoder is dead, or the images are blank.
        """
        some_NF = self.stored_NF[:: max(1, len(self.stored_NF) // 1000)].astype(np.float64)
        if len(some_NF) < 2:
            return False
        return bool(np.ptp(some_NF, axis=0).max() <= 1e-6 * np.abs(some_NF).max())

    def pool(self, name: str) -> Features:
        """Return the features of one kind: "cls", "mean" or "both" side by side.

        Raises:
            ConfigError: the encoder has no CLS token, which that kind needs.
        """
        if self.pools == ("any",) or (name == "both" and len(self.pools) == 2):
            return self.stored_NF
        if name not in self.pools:
            raise ConfigError(f"the encoder has no CLS token for --pool {name}; give --pool mean")
        parts = np.split(self.stored_NF, len(self.pools), axis=1)
        return np.ascontiguousarray(parts[self.pools.index(name)])

    @property
    def choices(self) -> tuple[str, ...]:
        """Every kind of features that `pool` takes and that differs from the others."""
        if len(self.pools) == 2:
            return (*self.pools, "both")
        return ("cls",) if self.pools == ("any",) else self.pools


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Which view is encoded: that of evaluation, or random crop and flip number `number`.

    Attributes:
        number: of the random view; None is the evaluation view.
        seed: of random views.
        crop_pct: of the evaluation view; see `view.evaluation_view`.
    """

    number: int | None = None
    seed: int = 0
    crop_pct: float = CROP_PCT

    def shown(self, image_size: int) -> Show:
        """Return what makes an encoder's input from an image and the sample's name."""
        number = self.number
        if number is None:
            return evaluated(image_size, self.crop_pct)

        def show(rgb_HWC: NDArray[np.uint8], name: str) -> torch.Tensor:
            height, width, _ = rgb_HWC.shape
            box = random_resized_crop(
                height, width, seed=self.seed, key=name, view=number, scale=CROP_SCALE
            )
            return view_pixels(rgb_HWC, box, image_size)

        return show

    def describe(self) -> dict[str, Any]:
        """Say what the view depends on."""
        if self.number is None:
            return {"name": "resized-center", "crop_pct": self.crop_pct}
        crop = {"seed": self.seed, "scale": list(CROP_SCALE), "number": self.number}
        return {"name": "random-resized-crop"} | crop


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureCache:
    """One encoder's features, in a folder.

    Attributes:
        folder: any place that can be written.
        identity: identifies the encoder: fingerprint, random weights and their seed.
        encoder: loads it; not called while all wanted features are there.
        batch_size: images at a time.
        workers: decoding threads.
        stop: checked before each image.
    """

    folder: str
    identity: dict[str, Any]
    encoder: Callable[[], FrozenEncoder]
    batch_size: int
    workers: int
    stop: StopRequest

    def get(self, manifest: Manifest, view: View, *, what: str) -> FeatureSet:
        """Return the features of a set's view: those in the folder, or new ones that go there.

        Args:
            manifest: of labelled image shards.
            view: which to show of each image.
            what: shown beside the progress bar.

        Raises:
            DataError: a sample has no class number, no image can be decoded, or a feature is not
                finite.
            InterruptedRunError: a stop was asked for.
        """
        url = features_url(self.folder, self.identity, manifest, view)
        features = _read(url)
        if features is None:
            features = self._extract(manifest, view, what)
            _write(url, features)
        return features

    def _extract(self, manifest: Manifest, view: View, what: str) -> FeatureSet:
        encoder = self.encoder()
        pools = _pools_of(encoder)
        places: list[tuple[str, str]] = []
        stored_NF, labels_N, bad = extract_features(
            encoder,
            _labelled_images(manifest, places, self.stop),
            total=manifest.samples,
            batch_size=self.batch_size,
            workers=self.workers,
            pool="mean" if pools == ("mean",) else "both",
            show=view.shown(encoder.image_size),
            description=what,
        )
        lost = {position for position, _ in bad}
        named = (f"{shard}/{key}" for at, (shard, key) in enumerate(places) if at not in lost)
        rows = ((*places[position], reason) for position, reason in bad)
        ledger = tuple(LedgerRow(shard=shard, key=key, reason=why) for shard, key, why in rows)
        return FeatureSet(
            stored_NF=stored_NF,
            labels_N=labels_N,
            pools=pools,
            bad=ledger,
            names=names_txt(named),
        )


def features_url(folder: str, identity: dict[str, Any], manifest: Manifest, view: View) -> str:
    """Return where these features are kept, without a suffix."""
    document = {"format": FORMAT, "encoder": identity, "images": manifest.sha256}
    return storage.join(folder, content_hash(document | {"view": view.describe()})[:16])


def is_cached(url: str) -> bool:
    """Tell whether features were written completely; reading checks them by their hash."""
    return storage.exists(f"{url}.sha256")


def _read(url: str) -> FeatureSet | None:
    """Read cached features; None where there are none, or not the ones that were written."""
    try:
        digest = storage.read_bytes(f"{url}.sha256")
        data = storage.read_bytes(f"{url}.safetensors")
    except MissingDataError:
        return None
    if hashlib.sha256(data).hexdigest().encode() != digest.strip():
        return None
    try:
        arrays = safetensors.numpy.load(data)
        note = parsed(arrays["note"].tobytes(), _Note)
        found = FeatureSet(
            stored_NF=arrays["features"],
            labels_N=arrays["labels"],
            pools=tuple(note["pools"]),
            bad=tuple(note["bad"]),
            names=arrays["names"].tobytes(),
        )
        samples, width = found.stored_NF.shape
        fits = width > 0 and found.labels_N.shape == (samples,)
        fits = fits and found.stored_NF.dtype.kind == "f" and found.labels_N.dtype == np.int64
    except (SafetensorError, LookupError, TypeError, ValueError):
        return None
    return found if fits else None


def _write(url: str, features: FeatureSet) -> None:
    note = json.dumps({"pools": features.pools, "bad": features.bad}).encode()
    arrays: dict[str, NDArray[Any]] = {
        "features": features.stored_NF,
        "labels": features.labels_N,
        "note": np.frombuffer(note, dtype=np.uint8),
        "names": np.frombuffer(features.names, dtype=np.uint8),
    }
    data = safetensors.numpy.save(arrays)
    storage.put_bytes(f"{url}.safetensors", data)
    storage.put_bytes(f"{url}.sha256", hashlib.sha256(data).hexdigest().encode() + b"\n")


def _pools_of(encoder: FrozenEncoder) -> tuple[str, ...]:
    """Find which kinds of features an encoder has, by a black image."""
    size = encoder.image_size
    black_1CHW = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    mean_1F = encoder.features(black_1CHW, pool="mean")
    try:
        both_1F = encoder.features(black_1CHW, pool="both")
    except ConfigError:
        return ("mean",)
    return ("any",) if both_1F.shape == mean_1F.shape else ("cls", "mean")


def _labelled_images(
    manifest: Manifest, places: list[tuple[str, str]], stop: StopRequest
) -> Iterator[tuple[bytes, int, str]]:
    """Yield each image's bytes, class number and name; note in `places` where it came from."""
    for shard in manifest.shards:
        for sample in iterate_shard(manifest, shard):
            stop.raise_if_asked("features of whole sets are kept, no scores were written")
            extension = image_member(sample.members, shard.details.get("image_field"))
            if extension is None:
                continue
            places.append((shard.name, sample.key))
            label = Label(class_number(sample.members))
            require_label(label, "class", sample.key, shard.name)
            name = f"{storage.basename(shard.name)}/{sample.key}"
            yield sample.members[extension], label.number, name
