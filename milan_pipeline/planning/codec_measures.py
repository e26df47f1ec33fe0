"""Measure what a codec does to targets: bytes, directions, colours, speed, distance from the bound.

The bytes of files are counted without writing them: all files of a store or of target shards,
except for the stages' records and the ledgers of skipped images. A codec's own arrays count at
their largest.

Legend: n samples, b samples of a batch, N tokens (CLS first), D target width.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.colours import TokenColours
from milan_pipeline.codecs.fidelity import Cosines, cosines_of
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.spectrum import directions, gaussian_bound, spectrum_of
from milan_pipeline.planning.codec_targets import TargetSet
from milan_pipeline.planning.dataset import stored_units
from milan_pipeline.planning.shard_size import ShardSize
from milan_pipeline.planning.store_size import KeyBytes, StoreSize
from milan_pipeline.provenance.identity import TRANSCODED_FROM, Identity
from milan_pipeline.targets.codec_sample import subsampled
from milan_pipeline.targets.units import AnyMark, Unit

BATCH = 64
REPEATS = 7
EXACT = 1e-12
"""A smaller mean squared error of directions is only the rounding of float64."""
BITS = 8
WORKERS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecMeasures:
    """Results of one codec on one set of targets.

    Attributes:
        codec: the value of `--codec`.
        targets: the set of targets: "store" or "synthetic".
        bytes_per_token: bytes of codes and scale of a token; of a sample, over its tokens.
        bytes_per_sample: bytes of all tokens of a sample.
        compression: bytes of a sample in float16 divided by those with this codec.
        files_compression: the same ratio for target shards with all their files.
        store_compression: the same ratio for target stores.
        mean_cosine: mean cosine between the tokens before and after.
        p01_cosine: first percentile of this cosine.
        cls_cosine: mean of this cosine over class tokens.
        rest_cosine: mean cosine of all channels but the largest of each sample.
        rest_p01_cosine: first percentile of that cosine.
        colour_agreement: see `Measurement.of`.
        bits_over_bound: see `bits_over_bound`.
        encode_per_s: images/s that are encoded, in batches of 64.
        decode_per_s: images/s that are decoded, in batches of 64.
    """

    codec: str
    targets: str
    bytes_per_token: float
    bytes_per_sample: int
    compression: float
    files_compression: float
    store_compression: float
    mean_cosine: float
    p01_cosine: float
    cls_cosine: float
    rest_cosine: float
    rest_p01_cosine: float
    colour_agreement: float
    bits_over_bound: float | None
    encode_per_s: float
    decode_per_s: float


@dataclasses.dataclass(frozen=True)
class FileBytes:
    """Counts the files that some units' targets would take with other codecs.

    Attributes:
        url: the store.
        identity: that of the store.
        units: finished units of the first view, with their marks.
        views: number of views that are counted, each with the images of the first.
    """

    url: str
    identity: Identity
    units: Sequence[tuple[Unit, AnyMark]]
    views: int = 1

    def shards(self, codec: Codec) -> int:
        """Count the bytes of target shards: tars, indices, manifest, and the codec's file."""
        size = ShardSize(self._identity_with(codec))
        return size.units(self._sized) + size.manifest(self._sized)

    def store(self, codec: Codec) -> int:
        """Count the bytes of a target store: units, marks, groups, and the codec's arrays."""
        size = StoreSize(self._identity_with(codec))
        return size.units(self._sized) + size.groups(self.views)

    def _identity_with(self, codec: Codec) -> Identity:
        """Return the identity as extraction with the codec would write it."""
        parts = {name: self.identity[name] for name in self.identity if name != TRANSCODED_FROM}
        return parts | {"codec": codec.parameters()}

    @functools.cached_property
    def _sized(self) -> list[tuple[Unit, KeyBytes]]:
        """The units of every view, each as if its shard had only the images that have targets."""
        first = stored_units(self.url, self.units, workers=WORKERS)
        return [
            (Unit(view, unit.shard), keys) for view in range(self.views) for unit, keys in first
        ]


class Measurement:
    """Measures codecs on one set of targets; what does not depend on the codec is computed once."""

    def __init__(self, targets: TargetSet, files: FileBytes, device: torch.device) -> None:
        """Take the targets, the units whose files are counted, and where codecs run."""
        self.targets = targets
        self._files = files
        self._device = device
        tokens_nND = targets.measured_nND
        direction_TD = directions(subsampled(tokens_nND).flatten(0, 1)).numpy()
        self.variance_D: NDArray[np.float64] = spectrum_of(direction_TD).variance_D
        patches_TD = subsampled(tokens_nND)[:, 1:].flatten(0, 1)
        self._colours = TokenColours(directions(patches_TD).numpy())

    def of(self, text: str, codec: Codec) -> CodecMeasures:
        """Measure a codec.

        The agreement of pictures is 1 minus the mean absolute difference of their colours. Colours
        are directions of patches, projected on the first three principal components of the original
        directions, from 0 to 1. (PSNR is infinite if nothing is lost, and hard to interpret; an
        agreement of 0.99 is a difference of 1% of each colour's range.)

        Args:
            text: the value of `--codec`.
            codec: the codec made of it, fitted if needed.

        Raises:
            DataError: the codec cannot encode a target.
        """
        _, tokens, width = self.targets.measured_nND.shape
        size = codec.spec.payload_bytes(tokens, width)
        (cosine_nN, rest_nN), agreement = self._fidelity(codec)
        encode_per_s, decode_per_s = self._speeds(codec)
        shards, store = self._files.shards(codec), self._files.store(codec)
        full_shards, full_store = self._full_files
        mean = float(cosine_nN.mean())
        return CodecMeasures(
            codec=text,
            targets=self.targets.name,
            bytes_per_token=size / tokens,
            bytes_per_sample=size,
            compression=make_codec("float16").spec.payload_bytes(tokens, width) / size,
            files_compression=full_shards / shards,
            store_compression=full_store / store,
            mean_cosine=mean,
            p01_cosine=float(np.percentile(cosine_nN, 1)),
            cls_cosine=float(cosine_nN[:, 0].mean()),
            rest_cosine=float(rest_nN.mean()),
            rest_p01_cosine=float(np.percentile(rest_nN, 1)),
            colour_agreement=agreement,
            bits_over_bound=bits_over_bound(BITS * size / tokens, mean, self.variance_D),
            encode_per_s=encode_per_s,
            decode_per_s=decode_per_s,
        )

    @functools.cached_property
    def _full_files(self) -> tuple[int, int]:
        """Bytes of shards and of the store with float16."""
        codec = make_codec("float16")
        return self._files.shards(codec), self._files.store(codec)

    def _fidelity(self, codec: Codec) -> tuple[Cosines, float]:
        """Return the cosines of tokens to their decoded codes, and the agreement of pictures."""
        cosines, differences = [], []
        for tokens_bND in torch.split(self.targets.measured_nND, BATCH):
            decoded_bND = codec.decode(*codec.encode(tokens_bND.to(self._device))).cpu()
            cosines.append(cosines_of(tokens_bND, decoded_bND))
            differences.append(np.abs(self._picture(tokens_bND) - self._picture(decoded_bND)))
        agreement = 1 - float(np.concatenate(differences).mean(dtype=np.float64))
        return Cosines(*map(torch.cat, zip(*cosines, strict=True))), agreement

    def _picture(self, tokens_bND: torch.Tensor) -> NDArray[np.float32]:
        return self._colours(directions(tokens_bND[:, 1:]).numpy())

    def _speeds(self, codec: Codec) -> tuple[float, float]:
        """Return the images/s that are encoded, and the images/s that are decoded."""
        batch_bND = self.targets.measured_nND[:BATCH].to(self._device)
        encoded = codec.encode(batch_bND)
        encoding = _seconds(lambda: codec.encode(batch_bND), self._device)
        decoding = _seconds(lambda: codec.decode(*encoded), self._device)
        return len(batch_bND) / encoding, len(batch_bND) / decoding


def bits_over_bound(
    bits: float, mean_cosine: float, variance_D: NDArray[np.float64]
) -> float | None:
    """Return how many bits a component a codec takes beyond what a Gaussian source needs.

    The source has the spectrum of the targets, and is coded with the same distortion. Decoded
    directions that are scaled by the mean cosine m have a mean squared error of 1 - 2m·m + m² =
    1 - m², which is the smallest for any factor. The bound is that of Cover and Thomas, theorem
    10.3.3. A codec can be better than the bound if targets are not Gaussian, for example in
    clusters; the result is then below 0.

    Args:
        bits: bits of a token.
        mean_cosine: mean cosine between directions before and after.
        variance_D: variances of the principal components of centred directions.

    Returns:
        Bits for each component that the bound codes. None if nothing is lost, since the bound is
        then infinite, or if so much is lost that the bound codes no component.
    """
    distortion = 1 - mean_cosine**2
    if distortion < EXACT:
        return None
    bound, components = gaussian_bound(variance_D, distortion)
    return (bits - bound) / components if components else None


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of some work, after one run that is not counted."""
    seconds = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
