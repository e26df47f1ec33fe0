"""Semantic-aware sampling: patches that CLIP's CLS token attends to are kept more often."""

import numpy as np
import numpy.typing as npt

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.keyed_random import keyed_generator


def kept_count(patches: int, mask_ratio: float) -> int:
    """Return how many of `patches` stay visible: int(patches * (1 - mask_ratio)).

    Raises:
        ConfigError: the ratio would keep no patch or mask none.
    """
    kept = int(patches * (1 - mask_ratio)) if 0 < mask_ratio < 1 else 0
    if not 1 <= kept < patches:
        raise ConfigError(
            f"--mask-ratio {mask_ratio} must keep at least one of {patches} patches and mask at "
            "least one; choose a ratio nearer to 0.75"
        )
    return kept


def sample_kept(
    prior_L: npt.NDArray[np.float32], kept: int, *, seed: int, epoch: int, key: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw the visible patches of one sample, a pure function of the arguments.

    Patches are drawn without replacement, each draw with probability proportional to the prior of
    those left. (MILAN, arXiv 2208.06049, section 3.3.) An exponential race gives that law: patch i
    finishes after Exp(1) / prior_i, and the first `kept` to finish are kept.

    Args:
        prior_L: float32, at least 0, not necessarily of sum 1; zeros count as the smallest normal
            float32, so that they are kept last.
        kept: K, as `kept_count` gives it.
        seed: of the run.
        epoch: of the draw; each epoch draws anew.
        key: names the sample; samples of one key (in two foreign shards, say) draw alike.

    Returns:
        The kept (K,) and the masked (L - K,) patch indices, int64, each in ascending order.

    Raises:
        DataError: a prior is negative or not finite.
    """
    if not (np.isfinite(prior_L) & (prior_L >= 0)).all():
        raise DataError(
            f"the mask prior of {key!r} has negative or non-finite values; "
            "extract and pack its target again"
        )
    weights_L = np.maximum(prior_L, np.finfo(np.float32).tiny).astype(np.float64)
    generator = keyed_generator("mask", seed, epoch, key)
    finish_L = generator.standard_exponential(len(weights_L)) / weights_L
    order_L = np.argsort(finish_L, kind="stable")
    return np.sort(order_L[:kept]), np.sort(order_L[kept:])
