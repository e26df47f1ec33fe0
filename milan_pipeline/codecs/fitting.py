"""Fit a codec to a sample of targets.

Legend: n samples, N tokens (CLS first), M patches of a sample, T patches of all samples, D target
width, C bytes a token; S kinds of patches, E centres of a kind, K components, P predicting ones.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from milan_pipeline.codecs.clusters import centres, nearest, out_of_reach
from milan_pipeline.codecs.component_arrays import (
    BYTE,
    LEVELS,
    MOST_CENTRES,
    MOST_PREDICTING,
    most_components,
)
from milan_pipeline.codecs.fitting_kinds import STEPS, Kinds, drawn_rows, fit_kinds
from milan_pipeline.codecs.fitting_size import smallest_size
from milan_pipeline.codecs.joint import JointCodec
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.codecs.spectrum import directions, fill_water, spectrum_of
from milan_pipeline.errors import DataError

Progress = Callable[[int], object]
USUAL_FITS = 5
"""Fits until the size is found that keeps a cosine."""
SMALLEST = np.float32(1e-12)
IMAGES_A_CENTRE = 64
"""As few images as may make up a centre of CLS, on average."""
LEVEL_TOKENS = 32768
"""Tokens that levels are fitted to: 128 for each of 256."""


def fit_codec(
    spec: CodecSpec, tokens_nND: torch.Tensor, progress: Progress = lambda _: None
) -> JointCodec:
    """Fit a codec; the same sample gives the same codec.

    Args:
        spec: a codec that needs fitting.
        tokens_nND: float targets, CLS first; the patches may be a part of all.
        progress: called with 1 for each step that is done; there are `fit_steps` of them, or about
            so many if the size is searched for.

    Raises:
        ConfigError: the codec would take more bytes than int8, also for the cosine it is to keep.
        DataError: a token is not finite, or there are no tokens.
    """
    if not tokens_nND.numel() or not bool(tokens_nND.isfinite().all()):
        raise DataError(
            f"a codec cannot be fitted to the targets of {len(tokens_nND)} images, or to some that "
            "are not finite; check the images and the teacher"
        )
    spec = spec.for_width(tokens_nND.shape[-1])
    direction_nND = directions(tokens_nND).cpu()

    def fit(size: int, part_nND: torch.Tensor) -> JointCodec:
        own = dataclasses.replace(spec, token_bytes=size)
        return _fitted(own, part_nND.numpy(), progress)

    # With several threads, sums are added in the order in which they end, which changes last bits.
    with threadpool_limits(limits=1):
        if spec.cosine is None:
            return fit(spec.token_bytes or 0, direction_nND)
        size = smallest_size(fit, direction_nND, spec.cosine, most=spec.token_bytes or 0)
        return fit(size, direction_nND)


def fit_steps(spec: CodecSpec) -> int:
    """Return the number of steps of a fit, or about that of a search for a size."""
    fits = 1 if spec.cosine is None else USUAL_FITS
    return fits * (STEPS + (spec.token_bytes or 1) // fits - 1)


def _fitted(spec: CodecSpec, direction_nND: NDArray[np.float32], progress: Progress) -> JointCodec:
    """Fit kinds of patches, then levels that they and CLS share."""
    size = spec.token_bytes or 0
    bits, width = BYTE * (size - 1), direction_nND.shape[-1]
    cls_nD = direction_nND[:, 0]
    # Of images without patches, CLS stands for one.
    patches_nMD = direction_nND[:, 1:] if direction_nND.shape[1] > 1 else direction_nND
    own_ED = centres(cls_nD, min(MOST_CENTRES, max(1, len(cls_nD) // IMAGES_A_CENTRE)))
    rest_nD = cls_nD - own_ED[nearest(cls_nD, own_ED)]
    mean_D = cls_nD.mean(axis=0, dtype=np.float64)
    _, variance_D, component_DD = spectrum_of(rest_nD)
    cls_nP = _noisy((cls_nD - mean_D) @ component_DD.T, variance_D, bits)
    cls_TP = np.repeat(cls_nP, patches_nMD.shape[1], axis=0)
    kinds = fit_kinds(patches_nMD.reshape(-1, width), cls_TP, bits, progress)

    pooled_D = np.square(kinds.spread_SD[kinds.kind_T]).mean(axis=0, dtype=np.float64)
    group_K = _distributed(pooled_D[: most_components(spec, width)], size - 1)
    coded = len(group_K)
    spread_SD = np.append(kinds.spread_SD, np.sqrt(variance_D)[None], axis=0).astype(np.float32)
    predict_SPD = kinds.predict_SPD[:, :coded]
    # The decoder takes the components of CLS itself, not less its mean.
    shift_P = component_DD[: predict_SPD.shape[1]] @ mean_D
    centre_SED = kinds.centre_SED - np.einsum("p,spd->sd", shift_P, predict_SPD)[:, None]
    both = max(len(own_ED), centre_SED.shape[1])
    own_1ED, centre_SED = out_of_reach(own_ED[None], both), out_of_reach(centre_SED, both)
    return JointCodec(
        spec,
        {
            "centre": np.concatenate([centre_SED, own_1ED]),
            "basis": np.concatenate([kinds.basis_SDD, component_DD[None]])[:, :coded],
            "predict": predict_SPD,
            "spread": spread_SD[:, :coded],
            "level": _levels(kinds, group_K, np.sqrt(pooled_D[:coded]), progress),
            "place": 1 + group_K,
        },
    )


def _noisy(
    value_nD: NDArray[np.float64], variance_D: NDArray[np.float64], bits: int
) -> NDArray[np.float32]:
    """Return the components of CLS that have bits, with the noise of coding them."""
    bits_D = fill_water(variance_D, bits)
    coded = min(MOST_PREDICTING, max(1, int((bits_D > 0).sum())))
    noise_nP = np.random.Generator(np.random.PCG64(0)).normal(size=(len(value_nD), coded))
    deviation_P = np.sqrt(variance_D[:coded]) * 2.0 ** -bits_D[:coded]
    return (value_nD[:, :coded] + noise_nP * deviation_P).astype(np.float32)


def _levels(
    kinds: Kinds, group_K: NDArray[np.int64], pooled_K: NDArray[np.float64], progress: Progress
) -> NDArray[np.float32]:
    """Fit the levels (K, 256) of each byte, in standard deviations, to patches of all kinds."""
    rows = drawn_rows(len(kinds.kind_T), LEVEL_TOKENS)
    coded = len(group_K)
    spread_TK = kinds.spread_SD[kinds.kind_T[rows]][:, :coded]
    value_TK = kinds.values()[rows, :coded] / np.maximum(spread_TK, SMALLEST)
    level_K256 = np.zeros((coded, LEVELS), np.float32)
    for group in range(group_K.max() + 1):
        members = np.flatnonzero(group_K == group)
        # In these units the largest components count most; so do patches of wide kinds.
        unit_K = np.maximum(pooled_K[members], SMALLEST).astype(np.float32)
        weight_T = np.square(spread_TK[:, members]).sum(axis=1) + SMALLEST
        value_Tk = (value_TK[:, members] * unit_K).astype(np.float32)
        level_K256[members] = (centres(value_Tk, LEVELS, weight_T) / unit_K).T
        progress(1)
    return level_K256


def _distributed(variance_D: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Distribute components, of descending variance, over groups of about equal numbers of bits.

    (The parametric solution of optimised product quantisation, Ge et al., arXiv 1311.4055, section
    3.2, with bits by reverse water-filling in the place of variances.)

    Returns:
        The group of each component that is coded (K,); each group has at least one component.
    """
    bits_D = fill_water(variance_D, BYTE * groups)
    coded = max(groups, int((bits_D > 0).sum()))
    filled_G = np.zeros(groups)
    group_K = np.zeros(coded, np.int64)
    for component in range(coded):
        # The first components go to one group each, so that no group stays empty.
        group = component if component < groups else int(filled_G.argmin())
        group_K[component] = group
        filled_G[group] += bits_D[component]
    return group_K
