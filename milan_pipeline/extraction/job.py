"""What extraction is told: which images, which teacher, which store."""

import dataclasses
import math
from typing import Protocol

import torch

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.shards.manifest import Manifest


class TargetTeacher(Protocol):
    """What extraction asks of a teacher; `teacher.Teacher` is one.

    Legend: B batch, L patches, N = 1 + L tokens, D target width, S input size.
    """

    @property
    def image_size(self) -> int:
        """S, in pixels."""

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

    So it is of CPUs of one kind, where it is tested; on a GPU the batch is fixed to that end.

    Attributes:
        manifest: of the image shards.
        store: URL of the target store.
        identity_hash: of the store.
        teacher: what targets are made by.
        policy: how views are cut.
        codec: how targets are stored.
        batch_size: the most images that the teacher is given at a time.
        workers: decoding threads; 0 reads and decodes when a batch's turn comes.
        padded: give the teacher batches of one shape within a unit, also where the images run out
            or cannot be read, since what a GPU makes of a row may depend on the shape. None does so
            everywhere but on the CPU.
        whole: pad batches to `batch_size` rows everywhere: a teacher that was compiled for that
            shape is given no other.
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
        """Return the rows of each batch of a unit with so many images, at least one.

        Of all ways to do with the fewest batches, an even cut pads the least.
        """
        if self.whole:
            return self.batch_size
        return math.ceil(samples / math.ceil(samples / self.batch_size))

    @property
    def code_shape(self) -> tuple[int, int]:
        """(N, C) of one sample's codes."""
        height, width = self.teacher.grid
        return 1 + height * width, self.codec.spec.code_width(self.teacher.width)
