"""Centres of k-means, repeatable and of a fixed number.

scikit-learn takes seconds to import. It is loaded when vectors are clustered, since most commands
that can fit a codec fit none.

Legend: T vectors, D their width, E centres.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

ROUNDS = 15
"""Iterations; more of them have no measurable effect on codes."""

OUT_OF_REACH = 100.0
SMALLEST = 1e-6


def centres(
    vector_TD: NDArray[np.float32], count: int, weight_T: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return exactly `count` centres (E, D); where vectors are fewer, the last are out of reach.

    Equal centres would leave it to the rounding of a sum which of them is the nearest.

    Args:
        vector_TD: what is clustered, at least one.
        count: E.
        weight_T: how much each counts; None is alike.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    means = KMeans(
        min(count, len(vector_TD)), init="random", n_init=1, max_iter=ROUNDS, random_state=0
    )
    with warnings.catch_warnings():
        # Raised if there are fewer different vectors than centres; then some centres are equal.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = means.fit(vector_TD, sample_weight=weight_T).cluster_centers_
    return out_of_reach(np.unique(found.astype(np.float32), axis=0), count)


def out_of_reach(centre_xED: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Add centres that are far from all others, up to `count` of them (x, E, D)."""
    missing = count - centre_xED.shape[-2]
    far = OUT_OF_REACH * max(float(np.abs(centre_xED).max()), SMALLEST)
    around = [(0, 0)] * (centre_xED.ndim - 2)
    return np.pad(centre_xED, [*around, (0, missing), (0, 0)], constant_values=far)


def nearest(vector_TD: NDArray[np.float32], centre_ED: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the number (T,) of the nearest centre of each vector."""
    half_square_E = np.square(centre_ED).sum(axis=1) / 2
    number_T: NDArray[np.int64] = (half_square_E - vector_TD @ centre_ED.T).argmin(axis=1)
    return number_T
