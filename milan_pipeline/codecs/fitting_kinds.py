"""Find the kinds of patches: their centres, what CLS predicts of them, and their components.

Patches are assigned to the kind and centre that are expected to code them best, and each kind is
fitted to its patches again, in turns (a mixture of principal components, fitted as by k-means).
Each centre has a tier, which says how many bytes its patches take; a byte has a price.

Legend: n samples, M patches of a sample, T patches of all samples, D target width; S kinds, E
centres of a kind, A = S E classes, P predicting components of CLS, U tiers.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.clusters import centres, nearest
from milan_pipeline.codecs.kinds import (
    Expectation,
    best_of_tiers,
    expectation_of,
    expected_losses,
    within_budget,
)
from milan_pipeline.codecs.record_arrays import BYTE, MOST_CLASSES, MOST_TIERS, most_kinds
from milan_pipeline.codecs.spectrum import principal

Floats = NDArray[np.float32]
Progress = Callable[[int], object]
ROUNDS, NESTED_ROUNDS = 6, 3
"""Turns with one centre a kind, and with several."""
STEPS = ROUNDS + NESTED_ROUNDS
PATCHES_A_KIND, PATCHES_A_CENTRE = 512, 32
"""As few patches as may make up a kind or a centre, on average."""
PRIOR_PATCHES = 300
"""A kind's fit counts those of all patches as if they were this many of its own."""
STARTING_PATCHES = 16384
"""Patches that the first kinds are found from."""
ROWS_AT_ONCE = 4096
LEAST_SHARE, MOST_SHARE = 0.45, 1.75
"""Bytes of the smallest and of the largest tier, in those of a mean patch."""


@dataclasses.dataclass(kw_only=True)
class Kinds:
    """Kinds of patches, and the patches that they are fitted to.

    Attributes:
        patches_TD: directions.
        cls_TP: predicting components of the CLS of each patch's sample, of mean zero.
        centre_SED: centres.
        predict_SPD: what CLS adds to a patch.
        basis_SDD: orthonormal components, one a row.
        spread_SD: standard deviation of each component.
        kind_T: the kind of each patch.
        number_T: the number of its centre in its kind.
        tier_E: the tier of each centre, in every kind.
        bytes_U: the further bytes of each tier; fractions while there is one tier.
        mean_bytes: those that patches may have on average.
    """

    patches_TD: Floats
    cls_TP: Floats
    centre_SED: Floats
    predict_SPD: Floats
    basis_SDD: Floats
    spread_SD: Floats
    kind_T: NDArray[np.int64]
    number_T: NDArray[np.int64]
    tier_E: NDArray[np.int64]
    bytes_U: NDArray[np.float64]
    mean_bytes: float

    def rests(self, kind: int, rows: NDArray[np.int64]) -> Floats:
        """Return patches less what a kind predicts."""
        rest: Floats = self.patches_TD[rows] - self.cls_TP[rows] @ self.predict_SPD[kind]
        return rest

    def values(self) -> Floats:
        """Return the components (T, D) of each patch in its kind."""
        value_TD = np.empty_like(self.patches_TD)
        for kind, basis_DD in enumerate(self.basis_SDD):
            rows = np.flatnonzero(self.kind_T == kind)
            middle = self.centre_SED[kind, self.number_T[rows]]
            value_TD[rows] = (self.rests(kind, rows) - middle) @ basis_DD.T
        return value_TD


def fit_kinds(patches_TD: Floats, cls_TP: Floats, mean_bytes: float, progress: Progress) -> Kinds:
    """Fit kinds.

    Args:
        patches_TD: directions, at least one.
        cls_TP: components of the CLS of each patch's sample, of mean zero.
        mean_bytes: further bytes that patches will have on average.
        progress: called with 1 after each of `STEPS` turns, and with 0 more often, so that it can
            end a fit whose turns take a minute.
    """
    kinds = _first_kinds(patches_TD, cls_TP, mean_bytes)
    for _ in range(ROUNDS):
        _refit(kinds, progress)
        _assign(kinds, progress)
        progress(1)
    _refit(kinds, progress)
    _divide(kinds)
    for _ in range(NESTED_ROUNDS):
        _refit(kinds, progress)
        _assign(kinds, progress)
        progress(1)
    _refit(kinds, progress)
    return kinds


def _first_kinds(patches_TD: Floats, cls_TP: Floats, mean_bytes: float) -> Kinds:
    """Cluster what CLS does not predict."""
    count, width = patches_TD.shape
    kinds = min(most_kinds(width), max(1, count // PATCHES_A_KIND))
    predict_PD = _predictions(cls_TP, patches_TD - patches_TD.mean(axis=0), 0)
    rest_TD = patches_TD - cls_TP @ predict_PD
    drawn = drawn_rows(count, STARTING_PATCHES)
    middle_SD = centres(rest_TD[drawn], kinds)
    return Kinds(
        patches_TD=patches_TD,
        cls_TP=cls_TP,
        centre_SED=middle_SD[:, None],
        predict_SPD=np.repeat(predict_PD[None], kinds, axis=0),
        basis_SDD=np.empty((kinds, width, width), np.float32),
        spread_SD=np.empty((kinds, width), np.float32),
        kind_T=nearest(rest_TD, middle_SD),
        number_T=np.zeros(count, np.int64),
        tier_E=np.zeros(1, np.int64),
        bytes_U=np.array([mean_bytes]),
        mean_bytes=mean_bytes,
    )


def _refit(kinds: Kinds, progress: Progress) -> None:
    """Fit each kind to its patches: prediction, centres, then components of what is left."""
    start_PD = _predictions(kinds.cls_TP, kinds.patches_TD - kinds.patches_TD.mean(axis=0), 0)
    products = []
    for kind, centre_ED in enumerate(kinds.centre_SED):
        rows = np.flatnonzero(kinds.kind_T == kind)
        number = kinds.number_T[rows]
        rest = kinds.patches_TD[rows] - _means(kinds.patches_TD[rows], number, centre_ED)[number]
        kinds.predict_SPD[kind] = _predictions(kinds.cls_TP[rows], rest, start_PD)
        rest = kinds.rests(kind, rows)
        kinds.centre_SED[kind] = _means(rest, number, centre_ED)
        rest -= kinds.centre_SED[kind, number]
        products.append((rest.T @ rest).astype(np.float64))
        progress(0)
    pooled_DD = sum(products) / len(kinds.patches_TD)
    for kind, product_DD in enumerate(products):
        count = PRIOR_PATCHES + int((kinds.kind_T == kind).sum())
        covariance_DD = (product_DD + PRIOR_PATCHES * pooled_DD) / count
        variance_D, component_DD = principal(covariance_DD)
        kinds.basis_SDD[kind] = component_DD
        kinds.spread_SD[kind] = np.sqrt(variance_D)
        progress(0)


def _assign(kinds: Kinds, progress: Progress) -> None:
    """Give each patch the kind and centre that are expected to code it best for their bytes."""
    bits_U = (BYTE * kinds.bytes_U).tolist()
    expected = expectation_of(kinds.spread_SD, bits_U)
    bytes_U = torch.from_numpy(kinds.bytes_U.astype(np.float32))
    everyone = np.arange(len(kinds.patches_TD))
    for part in np.split(everyone, range(ROWS_AT_ONCE, len(everyone), ROWS_AT_ONCE)):
        tiers = len(kinds.bytes_U)
        tier_A = torch.from_numpy(np.tile(kinds.tier_E, len(kinds.centre_SED)))
        class_xU, loss_xU = best_of_tiers(_losses(kinds, part, expected), tier_A, tiers)
        # These patches are drawn from many images, which have about the mean of bytes together.
        budget = kinds.mean_bytes * len(part)
        tier_x = within_budget(loss_xU[None], bytes_U, budget)[0]
        best = class_xU.gather(1, tier_x[:, None])[:, 0].numpy()
        kinds.kind_T[part], kinds.number_T[part] = np.divmod(best, kinds.centre_SED.shape[1])
        progress(0)


def _losses(kinds: Kinds, rows: NDArray[np.int64], expected: Expectation) -> torch.Tensor:
    """Return the expected losses (x, A) of some patches."""
    # Most components of a wide teacher have no bits. They come last, and change no loss.
    coded_S = (expected.kept_STK > 0).any(dim=1).sum(dim=1).tolist()
    return torch.cat(
        [
            expected_losses(
                torch.from_numpy(kinds.rests(kind, rows)),
                torch.from_numpy(kinds.centre_SED[kind]),
                torch.from_numpy(kinds.basis_SDD[kind, :coded]),
                kept_TK=expected.kept_STK[kind, :, :coded],
                floor_T=expected.floor_ST[kind],
                tier_E=torch.from_numpy(kinds.tier_E),
            )
            for kind, coded in enumerate(coded_S)
        ],
        dim=1,
    )


def _divide(kinds: Kinds) -> None:
    """Give each kind several centres, of all tiers."""
    count, of_kind = len(kinds.patches_TD), len(kinds.centre_SED)
    kinds.bytes_U = tiers_of(kinds.mean_bytes)
    tiers = len(kinds.bytes_U)
    each = max(1, min(MOST_CLASSES, count // PATCHES_A_CENTRE) // (of_kind * tiers))
    divided = np.repeat(kinds.centre_SED, each, axis=1)
    for kind in range(of_kind):
        rows = np.flatnonzero(kinds.kind_T == kind)
        if len(rows):
            rest = kinds.rests(kind, rows)
            divided[kind] = centres(rest, each)
            kinds.number_T[rows] = nearest(rest, divided[kind])
    kinds.centre_SED = np.tile(divided, (1, tiers, 1))
    kinds.tier_E = np.repeat(np.arange(tiers), each)
    # Patches have no tier yet. The first assignment needs only spreads, which all tiers share.
    middle = int(np.abs(kinds.bytes_U - kinds.mean_bytes).argmin())
    kinds.number_T += middle * each


def tiers_of(mean_bytes: float) -> NDArray[np.float64]:
    """Return the further bytes of each tier: whole, ascending, some below and some above a mean."""
    low, high = (math.floor(mean_bytes * LEAST_SHARE), math.ceil(mean_bytes * MOST_SHARE))
    return np.unique(np.linspace(low, high, MOST_TIERS).round())


def _predictions(cls_TP: Floats, rest_TD: Floats, start_PD: Floats | int) -> Floats:
    """Return the least squares of patches by CLS, drawn to a start as by `PRIOR_PATCHES` more."""
    product_PP = (cls_TP.T @ cls_TP).astype(np.float64)
    drawn_PP = np.eye(len(product_PP)) * max(
        PRIOR_PATCHES * product_PP.trace() / max(1, len(cls_TP)) / max(1, len(product_PP)), 1e-9
    )
    missing_PD = cls_TP.T @ (rest_TD - cls_TP @ start_PD if np.ndim(start_PD) else rest_TD)
    found: Floats = (start_PD + np.linalg.solve(product_PP + drawn_PP, missing_PD)).astype("f4")
    return found


def _means(rest_TD: Floats, number_T: NDArray[np.int64], old_ED: Floats) -> Floats:
    """Return the mean of each centre's patches; a centre without any stays."""
    count_E = np.bincount(number_T, minlength=len(old_ED))
    is_E = number_T == np.arange(len(old_ED))[:, None]
    mean_ED = is_E.astype(np.float32) @ rest_TD / np.maximum(count_E, 1)[:, None]
    return np.where(count_E[:, None] > 0, mean_ED, old_ED).astype(np.float32)


def drawn_rows(total: int, count: int) -> NDArray[np.int64]:
    """Draw so many of a total of rows, or all if there are fewer; ascending."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.Generator(np.random.PCG64(0)).choice(total, count, replace=False))
