"""The targets that codecs are measured on: those of a store, or random ones of a known spectrum.

Legend: n samples, N tokens (CLS first), D target width.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch

from milan_pipeline import storage
from milan_pipeline.errors import DataError
from milan_pipeline.provenance.identity import TRANSCODED_FROM, Identity
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.codec_sample import sample_images, stored_sample
from milan_pipeline.targets.units import AnyMark, Unit

NEARLY_EXACT = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSet:
    """Targets to fit codecs to, and targets of other images to measure them on.

    Attributes:
        name: "store" or "synthetic".
        title: describes them in words.
        fit_nND: targets to fit to, float32.
        measured_nND: targets to measure on, float32.
        notes: sentences that help to read the results.
    """

    name: str
    title: str
    fit_nND: torch.Tensor
    measured_nND: torch.Tensor
    notes: Sequence[str] = ()


def stored_targets(
    url: str,
    identity: Identity,
    units: Sequence[tuple[Unit, AnyMark]],
    samples: int,
    *,
    fit_images: int | None = None,
) -> TargetSet:
    """Read the images that extraction would fit a codec to, and the next by their keys' hashes.

    Args:
        url: the store.
        identity: that of the store.
        units: units of one view.
        samples: the most images to measure.
        fit_images: the images to fit a codec to, where there are twice as many; None for those
            that are otherwise fitted to.

    Raises:
        DataError: the store is damaged, or has fewer than two images.
        StorageError: the store cannot be read.
    """
    images = sum(mark.n for _, mark in units)
    if images < 2:
        raise DataError(
            f"{url} has {images} images in a view, and none is left to measure a codec on that is "
            "fitted to it; extract more"
        )
    fit_images = fit_images or sample_images(math.prod(identity["teacher"]["grid"]))
    is_small = images < 2 * fit_images
    fitted = images // 2 if is_small else fit_images
    codec = read_store_codec(url, identity)
    fit_nND = stored_sample(url, units, codec, count=fitted)
    measured_nND = stored_sample(url, units, codec, first=fitted, count=samples)
    notes = []
    if is_small:
        notes.append(
            f"a view has {images} images, fewer than {2 * fit_images}: codecs are fitted to "
            "half of them"
        )
    if codec.spec.name not in NEARLY_EXACT or TRANSCODED_FROM in identity:
        notes.append(
            f"the store is lossy itself ({codec.spec.name}): figures are relative to what it holds"
        )
    shape = f"{len(measured_nND)} images of {measured_nND.shape[1]} x {measured_nND.shape[2]}"
    return TargetSet(
        name="store",
        title=f"{storage.basename(url)}: {shape}",
        fit_nND=fit_nND,
        measured_nND=measured_nND,
        notes=notes,
    )


def synthetic_targets(like: TargetSet, decay: float) -> TargetSet:
    """Draw Gaussian targets of the same number and shape as another set.

    They show what a codec does if the variance is spread over more components and there are no
    clusters.

    Args:
        like: the other set.
        decay: the k-th principal component has the variance k to the power of minus this.
    """
    samples, tokens, width = like.measured_nND.shape
    return TargetSet(
        name="synthetic",
        title=f"synthetic: {samples} of {tokens} x {width}, Gaussian, variances k^-{decay:g}",
        fit_nND=power_law_tokens(tuple(like.fit_nND.shape), decay=decay, seed=1),
        measured_nND=power_law_tokens((samples, tokens, width), decay=decay, seed=2),
    )


def power_law_tokens(shape: tuple[int, ...], *, decay: float, seed: int) -> torch.Tensor:
    """Draw Gaussian tokens, float32, of mean zero; the last dimension is their width.

    Their principal components are random directions, the same for every seed.
    """
    width = shape[-1]
    deviation_D = torch.arange(1, width + 1, dtype=torch.float32) ** (-decay / 2)
    rotation_DD, _ = torch.linalg.qr(_normal((width, width), seed=0))
    tokens: torch.Tensor = (_normal(shape, seed=seed) * deviation_D) @ rotation_DD.T
    return tokens


def _normal(shape: tuple[int, ...], *, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
