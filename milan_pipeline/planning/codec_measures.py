"""What a codec does to targets: bytes, directions, colours, speed, distance from the bound.

Legend: n samples, b of them in a batch, N tokens (CLS first), D target width.

What the files of targets take with each codec: all of store or shards, without writing them.

But for stages' records, and for ledgers of skipped images; a codec's own arrays at their largest.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from milan_pipeline.codecs.colours import TokenColours
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.registry import make_codec
from milan_pipeline.codecs.spectrum import directions, gaussian_bound, spectrum_of
from milan_pipeline.planning.codec_targets import TargetSet
from milan_pipeline.planning.dataset import stored_units
from milan_pipeline.planning.shard_size import ShardSize
from milan_pipeline.planning.store_size import KeyBytes, StoreSize
from milan_pipeline.provenance.identity import TRANSCODED_FROM, Identity
from milan_pipeline.targets.codec_files import subsampled
from milan_pipeline.targets.units import Mark, Unit

BATCH = 64
REPEATS = 7
EXACT = 1e-12
"""A mean squared error of directions that is nothing but the rounding of float64."""
BITS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecMeasures:
    """What was measured of one codec on one set of targets.

    Attributes:
        codec: the value of `--codec`.
        targets: what they were: "store" or "synthetic".
        bytes_per_token: codes and scale.
        bytes_per_sample: those of all its tokens.
        compression: float16's of them over this codec's.
        files_compression: float16's target shards, indices, manifest and all, over this codec's.
        store_compression: likewise of target stores.
        mean_cosine: of the directions of tokens before and after, over all tokens.
        p01_cosine: its first percentile.
        cls_cosine: its mean over class tokens.
        colour_agreement: see `Measurement.of`.
        bits_over_bound: see `bits_over_bound`.
        encode_per_s: images/s, in batches of 64.
        decode_per_s: likewise.
    """

    codec: str
    targets: str
    bytes_per_token: int
    bytes_per_sample: int
    compression: float
    files_compression: float
    store_compression: float
    mean_cosine: float
    p01_cosine: float
    cls_cosine: float
    colour_agreement: float
    bits_over_bound: float | None
    encode_per_s: float
    decode_per_s: float


@dataclasses.dataclass(frozen=True)
class FileBytes:
    """Counts the files that some units' targets would take with other codecs.

    Attributes:
        url: the store.
        identity: of the store.
        units: finished units of the first view, with their marks.
        views: how many are counted, each with the images of the first.
    """

    url: str
    identity: Identity
    units: Sequence[tuple[Unit, Mark]]
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
        """As extraction would write it with the codec, whatever the store was made from."""
        parts = {name: self.identity[name] for name in self.identity if name != TRANSCODED_FROM}
        return parts | {"codec": codec.parameters()}

    @functools.cached_property
    def _sized(self) -> list[tuple[Unit, KeyBytes]]:
        """The units of every view, as if of shards of just the images that have targets."""
        first = stored_units(self.url, self.units, workers=WORKERS)
        return [
            (Unit(view, unit.shard), keys) for view in range(self.views) for unit, keys in first
        ]


class Measurement:
    """Measures codecs on one set of targets; what is known whatever the codec is found once."""

    def __init__(self, targets: TargetSet, files: FileBytes, device: torch.device) -> None:
        """Take the targets, the units whose files are counted, and where codecs run."""
        self.targets = targets
        self._files = files
        self._device = device
        tokens_nND = targets.measured_nND
        direction_TD = directions(subsampled(tokens_nND)).numpy()
        self.variance_D: NDArray[np.float64] = spectrum_of(direction_TD).variance_D
        self._colours = TokenColours(directions(subsampled(tokens_nND[:, 1:])).numpy())

    def of(self, text: str, codec: Codec) -> CodecMeasures:
        """Measure a codec.

        Pictures agree to 1 minus the mean absolute difference of their colours, which are the
        directions of patches projected on the first three principal components of the original
        ones, from 0 to 1. (Not their PSNR: that has no end where nothing is lost, and no scale
        that the eye knows; here 0.99 is a difference of 1% of each colour's range.)

        Args:
            text: the value of `--codec`.
            codec: made of it, and fitted.

        Raises:
            DataError: it cannot encode a target.
        """
        _, tokens, width = self.targets.measured_nND.shape
        size = codec.spec.payload_bytes(width)
        cosine_nN, agreement = self._fidelity(codec)
        encode_per_s, decode_per_s = self._speeds(codec)
        shards, store = self._files.shards(codec), self._files.store(codec)
        full_shards, full_store = self._full_files
        mean = float(cosine_nN.mean())
        return CodecMeasures(
            codec=text,
            targets=self.targets.name,
            bytes_per_token=size,
            bytes_per_sample=tokens * size,
            compression=make_codec("float16").spec.payload_bytes(width) / size,
            files_compression=full_shards / shards,
            store_compression=full_store / store,
            mean_cosine=mean,
            p01_cosine=float(np.percentile(cosine_nN, 1)),
            cls_cosine=float(cosine_nN[:, 0].mean()),
            colour_agreement=agreement,
            bits_over_bound=bits_over_bound(BITS * size, mean, self.variance_D),
            encode_per_s=encode_per_s,
            decode_per_s=decode_per_s,
        )

    @functools.cached_property
    def _full_files(self) -> tuple[int, int]:
        """What shards and store take with float16."""
        codec = make_codec("float16")
        return self._files.shards(codec), self._files.store(codec)

    def _fidelity(self, codec: Codec) -> tuple[NDArray[np.float64], float]:
        """Return each token's cosine to what is decoded, (n, N), and how far pictures agree."""
        cosines, differences = [], []
        for tokens_bND in torch.split(self.targets.measured_nND, BATCH):
            decoded_bND = codec.decode(*codec.encode(tokens_bND.to(self._device))).cpu()
            cosines.append(F.cosine_similarity(tokens_bND.double(), decoded_bND.double(), dim=-1))
            differences.append(np.abs(self._picture(tokens_bND) - self._picture(decoded_bND)))
        agreement = 1 - float(np.concatenate(differences).mean(dtype=np.float64))
        return torch.cat(cosines).numpy(), agreement

    def _picture(self, tokens_bND: torch.Tensor) -> NDArray[np.float32]:
        return self._colours(directions(tokens_bND[:, 1:]).numpy())

    def _speeds(self, codec: Codec) -> tuple[float, float]:
        """Return the images/s that are encoded and that are decoded."""
        batch_bND = self.targets.measured_nND[:BATCH].to(self._device)
        encoded = codec.encode(batch_bND)
        encoding = _seconds(lambda: codec.encode(batch_bND), self._device)
        decoding = _seconds(lambda: codec.decode(*encoded), self._device)
        return len(batch_bND) / encoding, len(batch_bND) / decoding


def bits_over_bound(
    bits: float, mean_cosine: float, variance_D: NDArray[np.float64]
) -> float | None:
    """Return how many bits a component a codec takes more than a Gaussian source would need.

    The source is of the targets' spectrum, and is coded to the same distortion: decoded directions,
    all scaled by the mean cosine m, have a mean squared error of 1 - 2m·m + m² = 1 - m², and by no
    other factor a smaller one. The bound is of Cover and Thomas, theorem 10.3.3. It may be passed
    where targets are not Gaussian, in clusters say: the figure is then below 0.

    Args:
        bits: that a token takes.
        mean_cosine: of directions before and after.
        variance_D: of the principal components of centred directions.

    Returns:
        Bits for each component that the bound codes; None where nothing is lost, for which no
        number of bits is enough by the bound, or so much that it codes no component.
    """
    distortion = 1 - mean_cosine**2
    if distortion < EXACT:
        return None
    bound, components = gaussian_bound(variance_D, distortion)
    return (bits - bound) / components if components else None


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of some work, which was done once before."""
    seconds = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


WORKERS = 2
