"""What the parts share: the device, sizes of models, and a clock that waits for the device."""

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch

from milan_pipeline.core.devices import pick_device
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.models.student import Student
from milan_pipeline.teacher.load_by_name import untrained_visual
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher

TINY_CLIP = Path(__file__).with_name("tiny-clip.json")
TINY_STUDENT = StudentSpec(
    name="vit_tiny_patch16_224",
    image_size=32,
    patch_size=8,
    width=32,
    depth=2,
    heads=2,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
)
STUDENTS = {
    "B/16": StudentSpec(name="vit_base_patch16_224"),
    "L/16": StudentSpec(name="vit_large_patch16_224"),
}
WARM_UP = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the parts run, and how large their models are.

    Attributes:
        device_name: as torch knows it.
        tiny: models of a few thousand weights and runs of a step, to see that all of it works.
        until: when processes that a part starts end at the latest, by `time.monotonic`.
    """

    device_name: str
    tiny: bool
    until: float = math.inf

    @property
    def device(self) -> torch.device:
        """Where models run."""
        return pick_device(self.device_name)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU, for which host memory is page-locked."""
        return self.device.type == "cuda"

    @property
    def precision(self) -> str:
        """The precision that figures are of: bf16 on a GPU."""
        return "bf16" if self.on_gpu else "fp32"

    @property
    def seconds(self) -> float:
        """How long each rate is measured, at least."""
        return 0.0 if self.tiny else 1.5

    def of(self, full: int, tiny: int) -> int:
        """Return a size: the full one, or that of a tiny run."""
        return tiny if self.tiny else full

    def begin(self) -> None:
        """Prepare this process: register the tiny teacher, and compile nothing in a tiny run."""
        open_clip.add_model_config(TINY_CLIP)
        if self.tiny:
            torch.set_num_threads(1)
            # What is compiled is traced and then run by torch as it stands; compilers take minutes.
            eager = functools.partialmethod(torch.nn.Module.compile, backend="eager")
            torch.nn.Module.compile = eager  # type: ignore[assignment,method-assign]

    def teacher(
        self, size: str, precision: str, *, compiled: bool = False, grid: int | None = None
    ) -> Teacher:
        """Build an untrained CLIP tower, `B/16` or `L/14`, on the device."""
        name = TINY_CLIP.stem if self.tiny else f"ViT-{size.replace('/', '-')}"
        spec = TeacherSpec(
            name=name, precision=precision, compile=compiled, grid=None if self.tiny else grid
        )
        visual = copy.deepcopy(_visual(spec.name, spec.grid))
        return Teacher(visual, spec, device=str(self.device))

    def student(self, size: str, target_width: int) -> Student:
        """Build a student, `B/16` or `L/16`, on the device, for targets of a 14 x 14 grid."""
        spec = TINY_STUDENT if self.tiny else STUDENTS[size]
        side = self.of(14, 4)
        student, _ = build_student(spec, grid=(side, side), target_width=target_width, seed=0)
        return student.to(self.device)

    @property
    def image_size(self) -> int:
        """Of the student's views, in pixels."""
        return self.of(224, 32)

    @property
    def patch_size(self) -> int:
        """Of the student, in pixels."""
        return self.of(16, 8)

    @property
    def patches(self) -> int:
        """Patches of a view."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def kept(self) -> int:
        """Patches that the student sees: a quarter."""
        return self.patches // 4

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def rate(self, run: Callable[[], object], amount: float) -> float:
        """Return how much a second is done by calling `run` again and again.

        Args:
            run: does the amount; it may return before the device has done it.
            amount: of images, bytes or operations.
        """
        for _ in range(1 if self.tiny else WARM_UP):
            run()
        once = self.seconds_of(run, 1)
        count = max(1, int(self.seconds / once))
        return amount * count / self.seconds_of(run, count)

    def seconds_of(self, run: Callable[[], object], count: int) -> float:
        """Return the seconds that so many calls take until the device is done."""
        self.synchronise()
        started = time.perf_counter()
        for _ in range(count):
            run()
        self.synchronise()
        return time.perf_counter() - started

    def peak_gib(self) -> float:
        """Return the most memory of tensors on a GPU since the last call; 0 elsewhere."""
        if not self.on_gpu:
            return 0.0
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak


@functools.cache
def _visual(name: str, grid: int | None) -> torch.nn.Module:
    """Build an untrained tower once a process, which takes seconds; it is copied for each use."""
    return untrained_visual(TeacherSpec(name=name, grid=grid))
