"""Fit a codec to a sample of targets.

Legend: n samples, N tokens (CLS first), L patches, D target width, B bytes an image.
"""

import dataclasses
from collections.abc import Callable

import torch
from threadpoolctl import threadpool_limits

from milan_pipeline.codecs.fitting_image import fit_image_layer
from milan_pipeline.codecs.fitting_kinds import STEPS
from milan_pipeline.codecs.fitting_size import loss_of, parted, require_kept, smallest_size
from milan_pipeline.codecs.fitting_tokens import fit_token_layer, no_token_layer
from milan_pipeline.codecs.image_layer import decode_image, encode_image, image_layer
from milan_pipeline.codecs.joint import JointCodec
from milan_pipeline.codecs.record_arrays import Arrays, typed
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.errors import DataError

Progress = Callable[[int], object]
USUAL_FITS = 5
"""Fits until the size is found that keeps a cosine."""
IMAGE_STEPS = 2
CLS_SHARE = 1.2
"""Bytes of CLS before patches of kinds: so many times the square root of the image's."""
AT_ONCE = 64
TRIAL_PATCHES = 32_768
"""A fit of the token layer takes minutes at a ViT's width, so it must first win on so many."""


def fit_codec(
    spec: CodecSpec, tokens_nND: torch.Tensor, progress: Progress = lambda _: None
) -> JointCodec:
    """Fit a codec; the same sample gives the same codec.

    Args:
        spec: a codec that needs fitting.
        tokens_nND: float targets, CLS first.
        progress: called with 1 for each step that is done; there are `fit_steps` of them, or about
            so many if the size is searched for.

    Raises:
        ConfigError: the codec would take more bytes than int8, also for the cosine it is to keep.
        DataError: a token is not finite, or there are no tokens.
    """
    is_finite = all(bool(part.isfinite().all()) for part in torch.split(tokens_nND, AT_ONCE))
    if not tokens_nND.numel() or not is_finite:
        raise DataError(
            f"a codec cannot be fitted to the targets of {len(tokens_nND)} images, or to some that "
            "are not finite; check the images and the teacher"
        )
    _, tokens, width = tokens_nND.shape
    spec = spec.for_width(width)

    # With several threads, sums are added in the order in which they end, which changes last bits.
    with threadpool_limits(limits=1):
        fits = _Fits(spec, *parted(tokens_nND), progress)
        if spec.cosine is None:
            return fits.better(spec.code_shape(tokens, width)[1])
        return fits.smallest(spec.cosine, most=tokens * width)


def fit_steps(spec: CodecSpec) -> int:
    """Return the number of steps of a fit, or about that of a search for a size."""
    return (1 if spec.cosine is None else USUAL_FITS) * (IMAGE_STEPS + STEPS)


class _Fits:
    """Fits of one sample: to most of its images; the others measure them."""

    def __init__(
        self,
        spec: CodecSpec,
        fitted_nND: torch.Tensor,
        held_out_nND: torch.Tensor,
        progress: Progress,
    ) -> None:
        self._spec = spec
        self._fitted_nND, self._held_out_nND = fitted_nND, held_out_nND
        self._progress = progress

    def better(self, size: int) -> JointCodec:
        """Fit the image layer alone, and CLS with the token layer; return what loses less."""
        of_image = self.of_image(size)
        of_tokens = self._of_tokens_if_promising(size)
        if of_tokens is None or self._loss(of_image) <= self._loss(of_tokens):
            return of_image
        return of_tokens

    def smallest(self, cosine: float, *, most: int) -> JointCodec:
        """Return the codec of the fewest bytes that keeps a cosine.

        Raises:
            ConfigError: none does.
        """
        found = smallest_size(self.of_image, self._loss, cosine, most=most)
        size, of_image = require_kept(found, cosine)
        of_tokens = self._of_tokens_if_promising(size)
        if of_tokens is None or self._loss(of_tokens) > self._loss(of_image):
            return of_image
        smaller = smallest_size(
            self.of_tokens, self._loss, cosine, most=size, first=max(1, size * 3 // 4)
        )
        return of_image if smaller is None else smaller[1]

    def _of_tokens_if_promising(self, size: int) -> JointCodec | None:
        """Fit the token layer, unless the image layer is better after fits to fewer images."""
        images = max(1, TRIAL_PATCHES // self._fitted_nND.shape[1])
        if images < len(self._fitted_nND):
            few_nND = self._fitted_nND[:images]
            trial = _Fits(self._spec, few_nND, self._held_out_nND, lambda _: None)
            of_image, of_tokens = trial.of_image(size), trial.of_tokens(size)
            if of_tokens is None or trial._loss(of_image) <= trial._loss(of_tokens):
                self._progress(STEPS)
                return None
        return self.of_tokens(size)

    def of_image(self, size: int) -> JointCodec:
        """Fit the image layer alone."""
        arrays = fit_image_layer(self._fitted_nND.numpy(), size)
        self._progress(IMAGE_STEPS)
        return self._codec(size, arrays | no_token_layer(self._fitted_nND.shape[2]))

    def of_tokens(self, size: int) -> JointCodec | None:
        """Fit CLS and the token layer; return None where bytes are too few for a class a patch."""
        _, tokens, width = self._fitted_nND.shape
        cls_bytes = max(1, min(width, round(CLS_SHARE * size**0.5)))
        mean_bytes = (size - cls_bytes) / max(1, tokens - 1) - 1
        if tokens == 1 or mean_bytes < 0:
            self._progress(STEPS)
            return None
        direction_nND = self._fitted_nND.numpy()
        arrays = typed(fit_image_layer(direction_nND, cls_bytes, only_cls=True))
        layer = image_layer(arrays, torch.device("cpu"))
        cls_nC = torch.cat(
            [
                decode_image(encode_image(part, layer), layer)[0]
                for part in torch.split(self._fitted_nND, AT_ONCE)
            ]
        ).numpy()
        rest_nLD = direction_nND[:, 1:]
        of_tokens = fit_token_layer(rest_nLD, cls_nC, mean_bytes, self._progress)
        return self._codec(size, arrays | of_tokens)

    def _loss(self, codec: JointCodec) -> float:
        return loss_of(codec, self._held_out_nND)

    def _codec(self, size: int, arrays: Arrays) -> JointCodec:
        spec = self._spec
        if spec.cosine is not None:
            spec = dataclasses.replace(spec, token_bytes=size / self._fitted_nND.shape[1])
        return JointCodec(spec, typed(arrays))
