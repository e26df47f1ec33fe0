"""Make the examples of MILAN's pretraining: from the bytes of a pair to tensors.

The student's view is cut from the image by the stored box and flip, with the same functions as the
teacher's view.

Legend: B batch, K kept and M masked patches, N = 1 + L tokens, T supervised tokens, P = 3 * p * p
pixels of a patch, C code width, S side of the view.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.data.viewed_pairs import student_view
from milan_pipeline.errors import DataError
from milan_pipeline.images.crops import cut_patches
from milan_pipeline.models.student import supervised_slice
from milan_pipeline.pretraining.masking import draw_mask
from milan_pipeline.shards.random_access import IMAGE_MEMBER
from milan_pipeline.targets.shard_records import TARGET_EXTENSION, RecordLayout

CHUNK = 32  # samples, whose views take 5 MB at 224 px
ResultT = TypeVar("ResultT")


class Batch(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        patches_BKP: uint8 pixels of the kept patches.
        kept_BK: int64 patch indices, ascending.
        masked_BM: int64 patch indices, ascending.
        codes_BTC: encoded targets of the supervised tokens, in student order.
        scale_BT: float16 scales of these tokens; empty if the codec has no scale.
        keys: the samples.
    """

    patches_BKP: torch.Tensor
    kept_BK: torch.Tensor
    masked_BM: torch.Tensor
    codes_BTC: torch.Tensor
    scale_BT: torch.Tensor
    keys: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleConfig:
    """How examples are made of pairs.

    Attributes:
        image_size: height and width of the student's view, in pixels.
        patch_size: of the student.
        kept: K, visible patches.
        mask_seed: of the mask draws.
        layout: of the target records.
        masking: how the kept patches are drawn; see `masking.draw_mask`.
        supervise: the tokens whose targets are kept; see `student.supervised_slice`.
    """

    image_size: int
    patch_size: int
    kept: int
    mask_seed: int
    layout: RecordLayout
    masking: str = "semantic"
    supervise: str = "all"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.image_size // self.patch_size
        return side, side


class ToExamples:
    """Turn raw pairs into tensors: visible patches, mask, codes of the supervised tokens.

    A stage of a pipeline.
    """

    def __init__(self, config: ExampleConfig) -> None:
        self._config = config

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[Batch]:
        """Decode, crop, draw masks: examples without a batch dimension, in the samples' order.

        A few samples go through each step together. Decoding an image empties the processor's
        caches, and the other steps would then take two to three times as long (measured: a tenth of
        the total time).

        Raises:
            DataError: an image or its target cannot be used.
            MismatchError: a target was made from other image bytes.
        """
        source = iter(samples)
        while chunk := list(itertools.islice(source, CHUNK)):
            cut = [self._named(self._cut, sample) for sample in chunk]
            yield from [
                self._named(self._example, sample, *views)
                for sample, views in zip(chunk, cut, strict=True)
            ]

    def _named(
        self, step: Callable[..., ResultT], sample: dict[str, Any], *arguments: object
    ) -> ResultT:
        try:
            return step(sample, *arguments)
        except DataError as error:
            name = f"{sample['__url__']}, sample {sample['__key__']!r}"
            raise DataError(f"{name}: {error}") from error

    def _cut(self, sample: dict[str, Any]) -> tuple[NDArray[np.void], torch.Tensor]:
        """Return the target's record and its view (3, S, S)."""
        record = self._config.layout.from_bytes(sample[TARGET_EXTENSION])
        view_CSS = student_view(
            sample[IMAGE_MEMBER],
            record,
            image_size=self._config.image_size,
            digest=sample["digest"],
            key=sample["__key__"],
        )
        return record, view_CSS

    def _example(
        self, sample: dict[str, Any], record: NDArray[np.void], view_CSS: torch.Tensor
    ) -> Batch:
        config, key = self._config, sample["__key__"]
        kept_K, masked_M = draw_mask(
            config.masking,
            decode_prior(record["prior"]),
            config.kept,
            grid=config.grid,
            seed=config.mask_seed,
            epoch=sample["epoch"],
            key=key,
        )
        # Gathered here, on the worker, so that only supervised tokens are sent to the main process.
        student_order_N = np.concatenate([[0], kept_K + 1, masked_M + 1])
        patches = config.layout.patches
        tokens_T = student_order_N[
            supervised_slice(config.supervise, kept=config.kept, patches=patches)
        ]
        scale_T = (
            record["scale"][tokens_T] if config.layout.codec.has_scale else np.empty(0, np.float16)
        )
        return Batch(
            patches_BKP=cut_patches(view_CSS, config.patch_size, kept_K),
            kept_BK=torch.from_numpy(kept_K),
            masked_BM=torch.from_numpy(masked_M),
            codes_BTC=torch.from_numpy(record["codes"].take(tokens_T, axis=0)),
            scale_BT=torch.from_numpy(scale_T),
            keys=[key],
        )
