"""Fit the image layer: principal components, patterns of positions, and levels of coefficients.

Legend: n samples, N tokens (CLS first), L patches, D target width, B bytes an image; R all
coefficients, J coded ones; m coefficients of a group.
"""

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.codecs.clusters import centres
from milan_pipeline.codecs.record_arrays import BYTE, LEVELS
from milan_pipeline.codecs.spectrum import fill_water, principal

Floats = NDArray[np.float32]
AT_ONCE = 64
"""Samples that are transformed at a time."""
LEAST_BITS = 0.2
"""A coefficient that would get fewer bits than this gets none."""
LARGEST_GROUP = 40
LEVEL_VECTORS = 16384
"""Vectors that the levels of a group size are fitted to: 64 for each of 256."""
CAPPINGS = 20
SMALLEST = 1e-12


class Transform:
    """The orthonormal transform of images, and the variances of its coefficients.

    Attributes:
        mean_ND: mean of each token; where only CLS is coded, 0 for patches.
        cls_basis_DD: components of CLS, one a row.
        basis_DD: components of patches.
        position_LL: patterns of positions, one a row.
        variance_R: of the D coefficients of CLS and, pattern by pattern, those of patches.
    """

    def __init__(self, direction_nND: Floats, *, only_cls: bool) -> None:
        """Fit it to directions."""
        tokens, width = direction_nND.shape[1:]
        self.mean_ND = direction_nND.mean(axis=0, dtype=np.float64).astype(np.float32)
        if only_cls or tokens == 1:
            self.mean_ND[1:] = 0
        cls_nD = direction_nND[:, 0] - self.mean_ND[0]
        self.cls_basis_DD = _components(cls_nD.T @ cls_nD)
        self.patches = 0 if only_cls else tokens - 1
        self.basis_DD = np.zeros((1, width), np.float32)
        self.position_LL = np.zeros((1, max(1, tokens - 1)), np.float32)
        if self.patches:
            self._fit_patches(direction_nND)
        square_R = np.zeros(width * (1 + self.patches))
        for first in range(0, len(direction_nND), AT_ONCE):
            value_nR = self.coefficients(direction_nND[first : first + AT_ONCE])
            square_R += np.square(value_nR).sum(axis=0, dtype=np.float64)
        self.variance_R = square_R / len(direction_nND)

    def coefficients(self, direction_nND: Floats) -> Floats:
        """Return all coefficients (n, R) of directions."""
        centred_nND = direction_nND - self.mean_ND
        cls_nD = centred_nND[:, 0] @ self.cls_basis_DD.T
        if not self.patches:
            return np.asarray(cls_nD)
        patches = self.position_LL @ (centred_nND[:, 1:] @ self.basis_DD.T)
        return np.concatenate([cls_nD, patches.reshape(len(patches), -1)], axis=1)

    def _fit_patches(self, direction_nND: Floats) -> None:
        width, patches = direction_nND.shape[2], self.patches
        product_DD = np.zeros((width, width))
        for part_nLD in self._parts(direction_nND):
            flat_TD = part_nLD.reshape(-1, width)
            product_DD += flat_TD.T @ flat_TD
        self.basis_DD = _components(product_DD)
        product_LL = np.zeros((patches, patches))
        for part_nLD in self._parts(direction_nND):
            # An orthonormal basis does not change products of whole patches.
            flat_LX = part_nLD.transpose(1, 0, 2).reshape(patches, -1)
            product_LL += flat_LX @ flat_LX.T
        self.position_LL = _components(product_LL)

    def _parts(self, direction_nND: Floats) -> list[Floats]:
        return [
            direction_nND[first : first + AT_ONCE, 1:] - self.mean_ND[1:]
            for first in range(0, len(direction_nND), AT_ONCE)
        ]


def fit_image_layer(
    direction_nND: Floats, size: int, *, only_cls: bool = False
) -> dict[str, NDArray[np.generic]]:
    """Fit the image layer's arrays.

    Args:
        direction_nND: directions.
        size: its bytes; no more are used than there are coefficients.
        only_cls: whether patches are left to the token layer.
    """
    transform = Transform(direction_nND, only_cls=only_cls)
    groups = grouped(transform.variance_R, size)
    row_J = np.concatenate(groups)
    deviation_R = np.sqrt(transform.variance_R).astype(np.float32) + np.float32(SMALLEST)
    columns, levels = _levels(transform, direction_nND, groups, deviation_R)
    width = direction_nND.shape[2]
    of_cls = int(row_J[row_J < width].max(initial=0)) + 1
    of_patches = row_J[row_J >= width] - width
    pattern_J, component_J = np.divmod(of_patches, width)
    components, patterns = (int(each.max(initial=0)) + 1 for each in (component_J, pattern_J))
    own_J = row_J.copy()
    own_J[row_J >= width] = of_cls + pattern_J * components + component_J
    return {
        "mean": transform.mean_ND,
        "cls_basis": transform.cls_basis_DD[:of_cls],
        "basis": transform.basis_DD[:components],
        "position": transform.position_LL[:patterns],
        "row": own_J,
        "byte": np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        "column": np.concatenate([columns[len(group)] for group in groups]),
        "scale": deviation_R[row_J],
        "level": levels,
    }


def grouped(variance_R: NDArray[np.float64], size: int) -> list[NDArray[np.int64]]:
    """Distribute coefficients of the largest variances over groups of a byte.

    Coefficients of similar variance share a group, whose bits by reverse water-filling are about 8.
    """
    order_R = np.argsort(-variance_R, kind="stable")
    size = min(size, len(order_R))
    bits_R = _capped_bits(variance_R, BYTE * size)[order_R]
    coded = max(size, int((bits_R > LEAST_BITS).sum()))
    bits_J = np.maximum(bits_R[:coded], SMALLEST)
    left, groups, first = float(bits_J.sum()), [], 0
    for number in range(size):
        after = size - number - 1
        wanted, taken, last = left / (after + 1), 0.0, first
        # As many as come nearest to the wanted bits; one at least, and one for each later group.
        while last < coded - after and last - first < LARGEST_GROUP:
            if last > first and taken + bits_J[last] / 2 > wanted:
                break
            taken += bits_J[last]
            last += 1
        groups.append(order_R[first:last])
        left, first = left - taken, last
    return groups


def _capped_bits(variance_R: NDArray[np.float64], bits: float) -> NDArray[np.float64]:
    """Fill water, with at most a byte for a coefficient."""
    found_R = fill_water(variance_R, bits)
    is_full_R = np.zeros(len(found_R), bool)
    for _ in range(CAPPINGS):
        if not (found_R[~is_full_R] > BYTE).any():
            break
        is_full_R |= found_R >= BYTE
        found_R = np.full(len(found_R), float(BYTE))
        if is_full_R.all():
            break
        left = bits - BYTE * is_full_R.sum()
        found_R[~is_full_R] = fill_water(variance_R[~is_full_R], left)
    return found_R.clip(max=BYTE)


def _levels(
    transform: Transform,
    direction_nND: Floats,
    groups: list[NDArray[np.int64]],
    deviation_R: Floats,
) -> tuple[dict[int, NDArray[np.int64]], Floats]:
    """Fit the levels of each size of a group; return columns by size, and levels (V, 256)."""
    of_size: dict[int, list[NDArray[np.int64]]] = {}
    for group in groups:
        of_size.setdefault(len(group), []).append(group)
    # Groups of each size are drawn evenly, so that those of many samples are as many as needed.
    most = max(1, LEVEL_VECTORS // max(1, min(len(direction_nND), LEVEL_VECTORS)))
    drawn = {size: own[:: max(1, len(own) // most)][:most] for size, own in of_size.items()}
    needed = np.unique(np.concatenate([group for own in drawn.values() for group in own]))
    value_nj = np.concatenate(
        [
            transform.coefficients(direction_nND[first : first + AT_ONCE])[:, needed]
            for first in range(0, min(len(direction_nND), LEVEL_VECTORS), AT_ONCE)
        ]
    )
    value_nj /= deviation_R[needed]
    columns, levels, first = {}, [], 0
    for size, own in sorted(drawn.items()):
        place = np.searchsorted(needed, np.stack(own))
        levels.append(centres(value_nj[:, place].reshape(-1, size), LEVELS).T)
        columns[size] = np.arange(first, first + size)
        first += size
    return columns, np.concatenate(levels)


def _components(product_DD: NDArray[np.floating]) -> Floats:
    return principal(product_DD.astype(np.float64))[1].astype(np.float32)
