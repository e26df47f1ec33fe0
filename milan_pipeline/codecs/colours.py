"""Tokens as colours: their first three principal components as red, green and blue.

Legend: T tokens, D target width; x stands for any leading shape.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

CHANNELS = 3
PERCENTILES = (2, 98)


class TokenColours:
    """Colours by the principal components of some tokens; other tokens are projected on them."""

    def __init__(self, tokens_TD: NDArray[np.float32]) -> None:
        """Find the components, and scale them so that 96% of these tokens are within 0..1.

        Args:
            tokens_TD: at least 3 tokens, of a width of at least 3.
        """
        self._components = PCA(CHANNELS, random_state=0).fit(tokens_TD)
        projected_T3 = self._components.transform(tokens_TD)
        low_3, high_3 = np.percentile(projected_T3, PERCENTILES, axis=0)
        self._low_3 = low_3
        # If all tokens are equal, there is no spread to divide by.
        self._spread_3 = np.where(high_3 > low_3, high_3 - low_3, 1)

    def __call__(self, tokens_xD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the colours (x, 3), within 0..1, of tokens (x, D)."""
        flat_TD = tokens_xD.reshape(-1, tokens_xD.shape[-1])
        scaled_T3 = (self._components.transform(flat_TD) - self._low_3) / self._spread_3
        colours: NDArray[np.float32] = scaled_T3.clip(0, 1).astype(np.float32)
        return colours.reshape(*tokens_xD.shape[:-1], CHANNELS)
