"""The codec of whole images: one record of B bytes, in two layers.

`image_layer` codes CLS and, where it pays, coefficients of all patches together. `token_layer`
codes what is left of each patch; it has no bytes where it does not pay. The arrays:

    mean       (N, D) float16      what is taken off each token first
    cls_basis  (C, D) float16      orthonormal components of CLS, one a row
    basis      (K, D) float16      orthonormal components of patches, one a row
    position   (M, L) float16      orthonormal patterns of positions, one a row
    row        (J,) int32          which coefficient is coded: the C of CLS, then M times K
    byte       (J,) int32          the byte of the record that selects its level
    column     (J,) int32          the row of `level` that has its levels
    scale      (J,) float32        its standard deviation
    level      (V, 256) float32    levels by byte, in standard deviations
    centre     (S, E, D) float16   the class E s + e is centre e of kind s
    kind_basis (S, Q, D) float16   orthonormal components of each kind, one a row
    predict    (S, P, D) float16   what each of the first P components of CLS adds to a patch
    spread     (S, Q) float32      standard deviation of each component in each kind
    tier       (S, E) int32        tier of each class
    tier_bytes (T,) int32          bytes that a patch of a tier has after its class
    tier_place (T, Q) int32        which of them selects the level of a component
    tier_level (T, Q, 256) float32 levels by byte, in standard deviations; 0 where none are coded

Legend: n samples, N tokens (CLS first), L patches, D target width, B bytes an image; C, K, M, J, V,
S, E, Q, P, T as in the arrays above.
"""

from typing import Any, NamedTuple

import torch

from milan_pipeline.codecs.image_layer import ImageLayer, decode_image, encode_image, image_layer
from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.codecs.record_arrays import Arrays, checked_arrays, hash_of, image_bytes
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.codecs.token_layer import (
    TokenLayer,
    decode_tokens,
    encode_tokens,
    token_layer,
)


class _Held(NamedTuple):
    image: ImageLayer
    tokens: TokenLayer | None


class JointCodec(Codec):
    """A fitted codec; `fitting.fit_codec` makes one."""

    def __init__(self, spec: CodecSpec, arrays: Arrays) -> None:
        """Take the arrays.

        Args:
            spec: this codec, with its bytes a token.
            arrays: those that the module names.

        Raises:
            DataError: the arrays do not fit together.
        """
        self.spec = spec
        self.arrays = checked_arrays(spec, arrays)
        self._size = image_bytes(spec, self.arrays)
        self._by_device: dict[torch.device, _Held] = {}

    @property
    def has_token_layer(self) -> bool:
        """Whether patches have bytes of their own."""
        return int(self.arrays["byte"].max()) + 1 < self._size and len(self.arrays["mean"]) > 1

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return self.spec.parameters(hash_of(self.arrays))

    def tokens_of(self, shape: tuple[int, int]) -> int:
        """Return N, which the arrays know."""
        del shape
        return len(self.arrays["mean"])

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Encode directions; a token of length zero counts as no direction."""
        held = self._on(tokens_nND.device)
        sound_nN = tokens_nND.isfinite().all(dim=-1)
        direction_nND = directions(tokens_nND.masked_fill(~sound_nN[..., None], 0))
        codes_nB = encode_image(direction_nND, held.image)
        if held.tokens is not None:
            cls_nC, _, patches_nLD = decode_image(codes_nB, held.image)
            rest_nLD = direction_nND[:, 1:] - patches_nLD
            size = self._size - held.image.size
            of_tokens = encode_tokens(rest_nLD, cls_nC, held.tokens, size)
            codes_nB = torch.cat([codes_nB, of_tokens], dim=1)
        unused = self._size - codes_nB.shape[1]
        codes_nB = torch.nn.functional.pad(codes_nB, (0, unused))
        return Attempt(Encoded(codes_nB[:, None], None), sound_nN.all(dim=-1))

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Decode all tokens (n, N, D) of records (n, 1, B)."""
        del scale_nN
        held = self._on(codes_nNC.device)
        codes_nB = codes_nNC.flatten(0, -3)[:, 0]
        cls_nC, cls_nD, patches_nLD = decode_image(codes_nB, held.image)
        if held.tokens is not None:
            own_nB = codes_nB[:, held.image.size :]
            patches = patches_nLD.shape[1]
            patches_nLD = patches_nLD + decode_tokens(own_nB, cls_nC, held.tokens, patches)
        tokens_nND = torch.cat([cls_nD[:, None], patches_nLD], dim=1)
        return tokens_nND.reshape(*codes_nNC.shape[:-2], *tokens_nND.shape[1:])

    def _on(self, device: torch.device) -> _Held:
        if device not in self._by_device:
            tokens = token_layer(self.arrays, device) if self.has_token_layer else None
            self._by_device[device] = _Held(image_layer(self.arrays, device), tokens)
        return self._by_device[device]
