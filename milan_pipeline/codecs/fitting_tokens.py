"""Fit the token layer: kinds of patches, then the levels of each tier, which all kinds share.

Legend: n samples, L patches, T drawn patches of all samples, D target width; S kinds, K components,
P predicting components of CLS, U tiers.
"""

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.codecs.clusters import centres
from milan_pipeline.codecs.fitting_kinds import Progress, drawn_rows, fit_kinds
from milan_pipeline.codecs.record_arrays import BYTE, LEVELS, MOST_PREDICTING
from milan_pipeline.codecs.spectrum import fill_water

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]
SMALLEST = np.float32(1e-12)
LEVEL_TOKENS = 32768
"""Patches that levels are fitted to: 128 for each of 256."""
KIND_NUMBERS = 1 << 23
"""Components of the drawn patches together: 65,536 patches of 128."""


def no_token_layer(width: int) -> Arrays:
    """Return the arrays of a token layer without bytes."""
    return {
        "centre": np.zeros((1, 1, width)),
        "kind_basis": np.zeros((1, 1, width)),
        "predict": np.zeros((1, 1, width)),
        "spread": np.zeros((1, 1)),
        "tier": np.zeros((1, 1)),
        "tier_bytes": np.zeros(1),
        "tier_place": np.zeros((1, 1)),
        "tier_level": np.zeros((1, 1, LEVELS)),
    }


def fit_token_layer(
    rest_nLD: Floats, cls_nC: Floats, mean_bytes: float, progress: Progress
) -> Arrays:
    """Fit the token layer's arrays.

    Args:
        rest_nLD: patches, less what the image layer says of them.
        cls_nC: components of CLS as they are decoded.
        mean_bytes: bytes that a patch has on average after its class.
        progress: of `fit_kinds`.
    """
    count, patches, width = rest_nLD.shape
    each = max(1, min(patches, KIND_NUMBERS // (count * width)))
    order_nL = np.random.Generator(np.random.PCG64(0)).random((count, patches)).argsort(axis=1)
    drawn_nM = np.sort(order_nL[:, :each], axis=1)
    drawn_TD = np.take_along_axis(rest_nLD, drawn_nM[..., None], axis=1).reshape(-1, width)
    cls_TP = np.repeat(cls_nC[:, :MOST_PREDICTING], each, axis=0)
    kinds = fit_kinds(drawn_TD, cls_TP, mean_bytes, progress)
    sizes = kinds.bytes_U.astype(np.int64)
    value_TD, spread_TD = kinds.values(), kinds.spread_SD[kinds.kind_T]
    tier_T = kinds.tier_E[kinds.number_T]
    places, levels = [], []
    for tier, size in enumerate(sizes):
        rows = np.flatnonzero(tier_T == tier)
        # A tier that hardly any patch has is fitted to those of all tiers.
        rows = rows if len(rows) >= LEVELS else np.arange(len(tier_T))
        rows = rows[drawn_rows(len(rows), LEVEL_TOKENS)]
        place_D, level_D256 = _levels(value_TD[rows], spread_TD[rows], int(size))
        places.append(place_D)
        levels.append(level_D256)
        progress(0)
    # The first component is there even if no tier has bytes.
    is_coded_D = np.any([np.abs(each).any(axis=1) for each in levels], axis=0)
    coded = 1 + int(np.flatnonzero(is_coded_D).max(initial=0))
    return {
        "centre": kinds.centre_SED,
        "kind_basis": kinds.basis_SDD[:, :coded],
        "predict": kinds.predict_SPD,
        "spread": kinds.spread_SD[:, :coded],
        "tier": np.tile(kinds.tier_E, (len(kinds.centre_SED), 1)),
        "tier_bytes": sizes,
        "tier_place": np.stack(places)[:, :coded],
        "tier_level": np.stack(levels)[:, :coded],
    }


def _levels(
    value_TD: Floats, spread_TD: Floats, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fit the levels of a tier; return each component's byte (D,), and levels (D, 256).

    Levels are in standard deviations, and 0 for components that are not coded.
    """
    width = value_TD.shape[1]
    place_D, level_D256 = np.zeros(width, np.int64), np.zeros((width, LEVELS), np.float32)
    if not size:
        return place_D, level_D256
    pooled_D = np.square(value_TD).mean(axis=0, dtype=np.float64)
    order_D = np.argsort(-pooled_D, kind="stable")
    group_K = _distributed(pooled_D[order_D], min(size, width))
    for group in range(group_K.max() + 1):
        members = order_D[: len(group_K)][group_K == group]
        place_D[members] = group
        # In these units the largest components count most; so do patches of wide kinds.
        unit_m = np.sqrt(np.maximum(pooled_D[members], SMALLEST**2)).astype(np.float32)
        spread_Tm = np.maximum(spread_TD[:, members], SMALLEST)
        weight_T = np.square(spread_Tm).sum(axis=1)
        level = centres(value_TD[:, members] / spread_Tm * unit_m, LEVELS, weight_T)
        level_D256[members] = (level / unit_m).T
    return place_D, level_D256


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
