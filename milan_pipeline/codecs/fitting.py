"""Fit a codec to a sample of targets.

Legend: T tokens, D target width, K components, E centres.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from milan_pipeline.codecs.component_arrays import BYTE, LEVELS, Arrays, most_components
from milan_pipeline.codecs.components import ComponentCodec, TransformCodec, VectorCodec, nearest
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.codecs.spectrum import directions, fill_water, spectrum_of
from milan_pipeline.errors import DataError

ROUNDS = 25
"""Iterations of k-means; more of them have no measurable effect."""
ROWS_AT_ONCE = 4096
Progress = Callable[[int], object]


def fit_codec(
    spec: CodecSpec, tokens_TD: torch.Tensor, progress: Progress = lambda _: None
) -> ComponentCodec:
    """Fit a transform or a vector codec; the same sample gives the same codec.

    Args:
        spec: a codec that needs fitting.
        tokens_TD: float targets, of CLS and of patches.
        progress: called with 1 for each codebook that is done; there are `codebooks` of them.

    Raises:
        ConfigError: the codec would take more bytes than int8.
        DataError: a token is not finite, or there are no tokens.
    """
    if not len(tokens_TD) or not bool(tokens_TD.isfinite().all()):
        raise DataError(
            f"a codec cannot be fitted to {len(tokens_TD)} targets, or to some that are not "
            "finite; check the images and the teacher"
        )
    spec = spec.for_width(tokens_TD.shape[1])
    direction_TD = directions(tokens_TD).cpu().numpy()
    fit = fit_transform if spec.name == "transform" else fit_vector
    # With several threads, k-means adds in the order in which they end, which changes last bits.
    with threadpool_limits(limits=1):
        return fit(spec, direction_TD, progress)


def codebooks(spec: CodecSpec) -> int:
    """Return about how many codebooks there are to fit."""
    size = spec.token_bytes or 0
    return size if spec.name == "vector" else 4 * size


def fit_transform(
    spec: CodecSpec, direction_TD: NDArray[np.float32], progress: Progress
) -> TransformCodec:
    """Fit principal components, bits by reverse water-filling, and Lloyd-Max levels.

    (Goyal, Theoretical foundations of transform coding, 2001; levels: Lloyd 1982, which is k-means
    in one dimension.)
    """
    mean_D, variance_D, component_DD = spectrum_of(direction_TD)
    size, width = spec.code_width(len(mean_D)), len(mean_D)
    bits_D = _whole_bits(variance_D, BYTE * size)
    coded = np.flatnonzero(bits_D)
    bits_K = bits_D[coded]
    basis_KD = component_DD[coded]
    value_TK = _components(direction_TD, basis_KD, mean_D)
    level_K256 = np.full((len(coded), LEVELS), np.inf)
    for row, bits in enumerate(bits_K.tolist()):
        levels = np.sort(_centres(value_TK[:, row : row + 1], 2**bits)[:, 0])
        level_K256[row, : 2**bits] = np.pad(levels, (0, 2**bits - len(levels)), mode="edge")
        progress(1)
    arrays = {
        "centre": mean_D[None],
        "basis": basis_KD.reshape(-1, width),
        "level": level_K256,
        "offset": np.cumsum(bits_K) - bits_K,
        "bits": bits_K,
    }
    return TransformCodec(spec, arrays)


def fit_vector(
    spec: CodecSpec, direction_TD: NDArray[np.float32], progress: Progress
) -> VectorCodec:
    """Fit 256 centres, and product codebooks of the rotated residual.

    The first stage quantises whole vectors and covers what is not Gaussian. The residual is rotated
    to its principal components, which are distributed over the bytes so that each byte carries as
    much information: the parametric solution of optimised product quantisation (Ge et al., arXiv
    1311.4055, section 3.2), with bits by reverse water-filling in the place of variances. The
    residuals take the place of `direction_TD`, to save memory.
    """
    size = spec.code_width(direction_TD.shape[1])
    centre_ED = _padded(_centres(direction_TD, LEVELS))
    progress(1)
    centre_T = nearest(torch.from_numpy(direction_TD), torch.from_numpy(centre_ED)).numpy()
    residual_TD = np.subtract(direction_TD, centre_ED[centre_T], out=direction_TD)
    _, variance_D, component_DD = spectrum_of(residual_TD)
    group_K = _distributed(variance_D[: most_components(spec, len(variance_D))], size - 1)
    basis_KD = component_DD[: len(group_K)]
    value_TK = _components(residual_TD, basis_KD)
    level_K256 = np.zeros((len(group_K), LEVELS))
    for group in range(size - 1):
        members = np.flatnonzero(group_K == group)
        level_K256[members] = _padded(_centres(value_TK[:, members], LEVELS)).T
        progress(1)
    arrays: Arrays = {
        "centre": centre_ED,
        "basis": basis_KD,
        "level": level_K256,
        "offset": BYTE * (1 + group_K),
        "bits": np.full(len(group_K), BYTE),
    }
    return VectorCodec(spec, arrays)


def _components(
    vector_TD: NDArray[np.float32],
    basis_KD: NDArray[np.float64],
    mean_D: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float32]:
    """Return the components (T, K) of vectors less a mean; computed in float64, a part at a time.

    In float64 all vectors at once would take four times the memory of the vectors.
    """
    value_TK = np.empty((len(vector_TD), len(basis_KD)), np.float32)
    for first in range(0, len(vector_TD), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        value_TK[part] = (vector_TD[part] - mean_D) @ basis_KD.T
    return value_TK


def _whole_bits(variance_D: NDArray[np.float64], bits: int) -> NDArray[np.int64]:
    """Allocate whole bits, up to 8 a component; each bit goes to the component of largest error.

    This is reverse water-filling with whole bits: a bit divides a component's error by four.
    """
    bits_D = np.zeros(len(variance_D), np.int64)
    error_D = variance_D.copy()
    for _ in range(bits):
        best = int(error_D.argmax())
        bits_D[best] += 1
        error_D[best] = -1.0 if bits_D[best] == BYTE else error_D[best] / 4
    return bits_D


def _distributed(variance_D: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Distribute components, of descending variance, over groups of about equal numbers of bits.

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


def _centres(vector_TD: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return up to `count` centres of k-means, one a row."""
    count = min(count, len(vector_TD))
    means = KMeans(count, n_init=1, max_iter=ROUNDS, random_state=0, copy_x=False)
    with warnings.catch_warnings():
        # Raised if there are fewer different vectors than centres; then some centres are equal.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: NDArray[np.float32] = means.fit(vector_TD).cluster_centers_
    return found.astype(np.float32)


def _padded(centre_ED: NDArray[np.float32]) -> NDArray[np.float32]:
    """Repeat the last centre up to 256; of equal centres, the first counts as the nearest."""
    return np.pad(centre_ED, ((0, LEVELS - len(centre_ED)), (0, 0)), mode="edge")
