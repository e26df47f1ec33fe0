"""The input of the extraction loop: which images, which teacher, which store."""

import dataclasses
import math
from typing import Protocol

import torch

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.images.views import Interpolation, ViewPolicy
from milan_pipeline.shards.manifest import Manifest


class TargetTeacher(Protocol):
    """What extraction needs of a teacher; `teacher.Teacher` has all of it.

    Legend: B batch, L patches, N = 1 + L tokens, D target width, S input size.
    """

    @property
    def image_size(self) -> int:
        """S, in pixels."""

    @property
    def interpolation(self) -> Interpolation:
        """By which views are resized for it."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""

    @property
    def width(self) -> int:
        """D."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def __call__(self, pixels_BCSS: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn uint8 views into targets (B, N, D) and priors (B, L), float32, on the device."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionJob:
    """Everything that the loop needs; the same job on the same unit writes the same bytes.

    This is tested on CPUs of one kind. On a GPU, batches have a fixed shape for this purpose.

    Attributes:
        manifest: that of the image shards.
        store: URL of the target store.
        identity_hash: that of the store.
        teacher: makes the targets.
        policy: how views are cut.
        codec: how targets are stored.
        batch_size: the most images that the teacher gets at a time.
        workers: decoding threads; with 0, a batch is read and decoded when its turn comes.
        padded: whether all batches of a unit have the same shape, even if images are missing or
            cannot be read, since on a GPU the result of a row may depend on the shape. None means
            yes on every device but the CPU.
        whole: whether all batches have `batch_size` rows: a teacher that was compiled for that
            shape gets no other shape.
    """

    manifest: Manifest
    store: str
    identity_hash: str
    teacher: TargetTeacher
    policy: ViewPolicy
    codec: Codec
    batch_size: int
    workers: int
    padded: bool | None = None
    whole: bool = False

    @property
    def pads(self) -> bool:
        """Whether batches are padded."""
        by_itself = self.whole or self.teacher.device.type != "cpu"
        return by_itself if self.padded is None else self.padded

    def rows_of(self, samples: int) -> int:
        """Return the rows of each batch of a unit of this many images (at least one).

        Batches of equal size need the least padding for the smallest number of batches.
        """
        if self.whole:
            return self.batch_size
        return math.ceil(samples / math.ceil(samples / self.batch_size))

    @property
    def code_shape(self) -> tuple[int, int]:
        """(N, C) of one sample's codes."""
        height, width = self.teacher.grid
        return self.codec.spec.code_shape(1 + height * width, self.teacher.width)
