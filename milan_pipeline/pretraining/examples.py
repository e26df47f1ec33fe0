"""Make the examples of MILAN's pretraining: from the bytes of a pair to tensors.

The student's view is cut from the image by the stored box and flip, with the same functions as the
teacher's view; it is resized by bicubic interpolation, whatever the teacher's was. Where there are
targets of several teachers, all must be of that view.

Legend: B batch, K kept and M masked patches, N = 1 + L tokens, T supervised tokens, P = 3 * p * p
pixels of a patch, C code width, S side of the view.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.data.viewed_pairs import stored_view
from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.images.crops import cut_patches
from milan_pipeline.models.student import supervised_slice
from milan_pipeline.pretraining.masking import draw_mask
from milan_pipeline.pretraining.resampling import resampled_prior
from milan_pipeline.shards.random_access import IMAGE_MEMBER
from milan_pipeline.targets.shard_records import RecordLayout, target_members

CHUNK = 32  # samples, whose views take 5 MB at 224 px
ResultT = TypeVar("ResultT")


class Batch(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        patches_BKP: uint8 pixels of the kept patches.
        kept_BK: int64 patch indices, ascending.
        masked_BM: int64 patch indices, ascending.
        codes: of each teacher, (B, T, C): encoded targets of the supervised tokens, in student
            order. With a codec that needs CLS to decode patches, CLS is first, also where it is not
            supervised: (B, 1 + T, C). Of a teacher whose grid is not the student's, those of all
            its tokens, in grid order.
        scales: of each teacher, (B, T): float16 scales of these tokens; empty if its codec has no
            scale.
        keys: the samples.
    """

    patches_BKP: torch.Tensor
    kept_BK: torch.Tensor
    masked_BM: torch.Tensor
    codes: list[torch.Tensor]
    scales: list[torch.Tensor]
    keys: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleConfig:
    """How examples are made of pairs.

    Attributes:
        image_size: height and width of the student's view, in pixels.
        patch_size: of the student.
        kept: K, visible patches.
        mask_seed: of the mask draws.
        layouts: of the target records of each teacher.
        prior_from: number of the teacher whose prior masks are drawn by.
        masking: how the kept patches are drawn; see `masking.draw_mask`.
        supervise: the tokens whose targets are kept; see `student.supervised_slice`.
        other_grids: grids that are not the student's, by number of the teacher.
    """

    image_size: int
    patch_size: int
    kept: int
    mask_seed: int
    layouts: tuple[RecordLayout, ...]
    prior_from: int = 0
    masking: str = "semantic"
    supervise: str = "all"
    other_grids: Mapping[int, tuple[int, int]] = dataclasses.field(default_factory=dict)

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
            MismatchError: a target was made from other image bytes, or teachers saw different
                views.
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

    def _cut(self, sample: dict[str, Any]) -> tuple[list[NDArray[np.void]], torch.Tensor]:
        """Return the record of each teacher, and their view (3, S, S)."""
        members = zip(self._config.layouts, target_members(), strict=False)
        records = [layout.from_bytes(sample[member]) for layout, member in members]
        for other in records[1:]:
            _require_same_view(records[0], other, sample["__key__"])
        view_CSS = stored_view(
            sample[IMAGE_MEMBER],
            records[0],
            image_size=self._config.image_size,
            digest=sample["digest"],
            key=sample["__key__"],
        )
        return records, view_CSS

    def _example(
        self, sample: dict[str, Any], records: list[NDArray[np.void]], view_CSS: torch.Tensor
    ) -> Batch:
        config, key, lends = self._config, sample["__key__"], self._config.prior_from
        prior_L = decode_prior(records[lends]["prior"])
        kept_K, masked_M = draw_mask(
            config.masking,
            resampled_prior(prior_L, config.other_grids.get(lends, config.grid), config.grid),
            config.kept,
            grid=config.grid,
            seed=config.mask_seed,
            epoch=sample["epoch"],
            key=key,
        )
        # Gathered here, on the worker, so that only supervised tokens are sent to the main process.
        student_order_N = np.concatenate([[0], kept_K + 1, masked_M + 1])
        patches = len(student_order_N) - 1
        tokens_T = student_order_N[
            supervised_slice(config.supervise, kept=config.kept, patches=patches)
        ]
        wanted = [
            np.arange(1 + layout.patches) if number in config.other_grids else tokens_T
            for number, layout in enumerate(config.layouts)
        ]
        no_scale = np.empty(0, np.float16)
        scales = [
            record["scale"][tokens] if layout.codec.has_scale else no_scale
            for layout, record, tokens in zip(config.layouts, records, wanted, strict=True)
        ]
        return Batch(
            patches_BKP=cut_patches(view_CSS, config.patch_size, kept_K),
            kept_BK=torch.from_numpy(kept_K),
            masked_BM=torch.from_numpy(masked_M),
            codes=[
                torch.from_numpy(_codes(record, layout, tokens))
                for record, layout, tokens in zip(records, config.layouts, wanted, strict=True)
            ],
            scales=[torch.from_numpy(scale_T) for scale_T in scales],
            keys=[key],
        )


def _codes(
    record: NDArray[np.void], layout: RecordLayout, tokens_T: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the codes of some tokens, or all of a sample that is coded as a whole."""
    stored: NDArray[Any] = record["codes"]
    codes: NDArray[Any] = stored.copy() if layout.codec.is_of_images else stored.take(tokens_T, 0)
    return codes


def _require_same_view(record: NDArray[np.void], other: NDArray[np.void], key: str) -> None:
    """Refuse targets of two teachers that did not see the same view of the same image."""
    for name in ("digest", "box", "flip"):
        ours, theirs = record[name].tolist(), other[name].tolist()
        if ours != theirs:
            raise MismatchError(
                f"the targets of {key!r} are of different views: {name} is {ours} for one teacher "
                f"and {theirs} for another; extract both from the same images with the same options"
            )
