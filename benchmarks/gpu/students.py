"""The student's step from stored targets, against an equally tuned one with its teacher online.

Both are steps of our trainer with the same student, compiled alike. Online, the batch is made on
the device: the whole view is copied there, the teacher computes targets and prior, the mask is
drawn and the kept patches are cut. Stored, the kept patches and the codes are copied.

Legend: B batch, L patches, K kept, N = 1 + L tokens, D target width.
"""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.rates import matmul_peak
from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import example_batch, pretraining, timed_steps
from benchmarks.step_table import STEP_MULTIPLY_ADDS
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.models.student import patchify
from milan_pipeline.planning.teacher_speed import TimedTeacher
from milan_pipeline.pretraining.examples import Batch

BATCH = {"B/16": 512, "L/16": 256}
WIDTH = 512
TEACHER_GRID = 14
"""Of teachers online: as many patches as the student has. L/14 then takes views of 196 pixels."""


def measure(size: str, setting: Setting, known: Figures, found: Findings) -> None:
    """Measure a student's step from stored int8 targets, eager and compiled."""
    peak = matmul_peak(known, setting.precision)
    width, batch = setting.of(WIDTH, 24), setting.of(BATCH[size], 4)
    for compiled in (True, False):
        name = f"student {size} {'compiled' if compiled else 'eager'}"
        with found.going_on(name):
            task = pretraining(setting.student(size, width), make_codec("int8"), setting.precision)
            batches = itertools.repeat(example_batch(setting, batch, width))
            steps = timed_steps(setting, task, batches, compiled=compiled)
            found.figure(f"{name}, images/s", steps.rate)
            found.figure(f"{name}, GiB", steps.gib)
            if peak and not setting.tiny:  # whose multiply-adds are not counted
                share = steps.rate * STEP_MULTIPLY_ADDS[size[0]] / peak
                found.figure(f"{name}, share of the matmul's rate", share)


def residual(setting: Setting, known: Figures, found: Findings) -> None:
    """Measure a B/16 student's step, compiled, with the tokens between blocks in bfloat16."""
    del known
    width, batch = setting.of(WIDTH, 24), setting.of(BATCH["B/16"], 4)
    student, codec = setting.student("B/16", width), make_codec("int8")
    task = pretraining(student, codec, setting.precision, residual="bf16")
    batches = itertools.repeat(example_batch(setting, batch, width))
    steps = timed_steps(setting, task, batches, compiled=True)
    found.figure("student B/16 compiled, tokens in bf16, images/s", steps.rate)
    found.figure("student B/16 compiled, tokens in bf16, GiB", steps.gib)


def online(teacher_size: str, setting: Setting, known: Figures, found: Findings) -> None:
    """Measure a B/16 student's step, compiled, with stored targets and with a teacher online."""
    del known
    batch = setting.of(BATCH["B/16"], 4)
    teacher = setting.teacher(teacher_size, setting.precision, compiled=True, grid=TEACHER_GRID)
    rates = {}
    for way in ("stored", "online"):
        stored = way == "stored"
        student = setting.student("B/16", teacher.width)
        targets = make_codec("int8") if stored else _Computed()
        task = pretraining(student, targets, setting.precision)
        batches = (
            itertools.repeat(example_batch(setting, batch, teacher.width))
            if stored
            else online_batches(setting, teacher, batch)
        )
        steps = timed_steps(setting, task, batches, compiled=True)
        rates[way] = steps.rate
        found.figure(f"step B/16, {way} {teacher_size}, images/s", steps.rate)
        found.figure(f"step B/16, {way} {teacher_size}, GiB", steps.gib)
    found.figure(f"step B/16, stored over online {teacher_size}", rates["stored"] / rates["online"])


class _Computed:
    """Targets that are there already, in place of a codec."""

    in_grid_order = False

    def decode(self, codes_BTC: Tensor, scale_BT: Tensor) -> Tensor:
        """Return them."""
        del scale_BT
        return codes_BTC


def online_batches(setting: Setting, teacher: TimedTeacher, batch: int) -> Iterator[Batch]:
    """Yield batches made on the device, without an end, each from a copy of the same views."""
    side = setting.image_size
    random = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=random)
    views = views.pin_memory() if setting.on_gpu else views
    keys = [str(number) for number in range(batch)]
    while True:
        yield make_batch(setting, teacher, views.to(setting.device, non_blocking=True), keys)


@torch.no_grad()
def make_batch(
    setting: Setting, teacher: TimedTeacher, views_BCSS: Tensor, keys: list[str]
) -> Batch:
    """Return the batch of some views (B, 3, S, S) uint8, on their device: targets are float32."""
    seen_BCSS = views_BCSS
    if teacher.image_size != views_BCSS.shape[-1]:
        resized = F.interpolate(views_BCSS.float(), teacher.image_size, mode="bicubic")
        seen_BCSS = resized.clamp_(0, 255).to(torch.uint8)
    targets_BND, prior_BL = teacher(seen_BCSS)
    # Drawn without replacement, by probability: as torch.multinomial does it, but without a wait.
    order_BL = (prior_BL / torch.empty_like(prior_BL).exponential_()).argsort(1, descending=True)
    kept_BK, masked_BM = order_BL[:, : setting.kept], order_BL[:, setting.kept :]
    rows_BN = F.pad(torch.cat([kept_BK, masked_BM], dim=1) + 1, (1, 0))
    targets_BND = targets_BND.gather(1, rows_BN[..., None].expand_as(targets_BND))
    patches_BLP = patchify(views_BCSS, setting.patch_size)
    patches_BKP = patches_BLP.gather(1, kept_BK[..., None].expand(-1, -1, patches_BLP.shape[-1]))
    scale = torch.empty(len(keys), 0, device=views_BCSS.device)
    return Batch(patches_BKP, kept_BK, masked_BM, [targets_BND], [scale], keys)
