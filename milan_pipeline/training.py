"""The training loop: batches -> student -> loss -> step, with resume and exact bookkeeping.

Legend: B batch, K kept patches, T supervised tokens, P pixels of a patch, D target width.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from milan_pipeline.attention import spell_out_attention
from milan_pipeline.codecs import Codec
from milan_pipeline.devices import keep_freed_memory
from milan_pipeline.distributed import World
from milan_pipeline.ema import MovingAverage
from milan_pipeline.examples import Batch
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.linear import onednn_is_faster, use_onednn
from milan_pipeline.losses import make_loss
from milan_pipeline.meter import Meter
from milan_pipeline.order import StepClock
from milan_pipeline.progress import progress_bar
from milan_pipeline.recipe import (
    clip_gradients,
    learning_rate,
    make_optimiser,
    set_learning_rate,
)
from milan_pipeline.replicas import accumulating, blocks_of, replicate, settle
from milan_pipeline.run_folder import OpenRun, RunFolder
from milan_pipeline.stream import explained_worker_deaths
from milan_pipeline.student import Student


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What the loop needs to know.

    Attributes:
        batch: pairs in a global batch.
        micro_batch: pairs in one forward pass of one process; the rest is accumulated.
        epochs: length of the schedule.
        warmup_epochs: of the learning rate.
        base_lr: for a batch of 256.
        weight_decay: AdamW's.
        total_steps: where to stop; at most the schedule's own steps.
        bf16: compute under bfloat16 autocast.
        checkpoint_every: steps between checkpoints.
        keep: checkpoints to keep.
        log_every: steps between looks at the loss, which wait for the device.
        mean: of the student's pixels, in [0, 1].
        std: likewise.
        loss: see `losses.make_loss`.
        target_norm: likewise.
        clip_grad: largest norm of the gradients; None leaves them as they are.
        ema_decay: of a moving average of the weights; None keeps none.
        fsdp: shard the student over the processes instead of copying it.
        compile: compile the student's blocks.
        gradient_checkpointing: compute blocks again in the backward pass, to save memory.
    """

    batch: int
    micro_batch: int
    epochs: int
    warmup_epochs: float
    base_lr: float
    weight_decay: float
    total_steps: int
    bf16: bool
    checkpoint_every: int
    keep: int
    log_every: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    loss: str = "cosine"
    target_norm: str = "l2"
    clip_grad: float | None = None
    ema_decay: float | None = None
    fsdp: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False


class StudentInput:
    """Turn encoded batches into what the student takes, on the device."""

    def __init__(self, config: TrainingConfig, codec: Codec, device: torch.device) -> None:
        self._codec = codec
        self._device = device
        self._config = config
        self._statistics: tuple[torch.Tensor, torch.Tensor] | None = None

    def pixels(self, patches_BKP: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 patches, channel-major, to float32."""
        if self._statistics is None:
            per_channel = patches_BKP.shape[-1] // len(self._config.mean)
            mean = torch.tensor(self._config.mean).repeat_interleave(per_channel) * 255
            std = torch.tensor(self._config.std).repeat_interleave(per_channel) * 255
            self._statistics = mean.to(self._device), std.to(self._device)
        mean_P, std_P = self._statistics
        return (patches_BKP.to(self._device, non_blocking=True).float() - mean_P) / std_P

    def targets(self, codes_BTC: torch.Tensor, scale_BT: torch.Tensor) -> torch.Tensor:
        """Decode targets to float32 (B, T, D)."""
        codes = codes_BTC.to(self._device, non_blocking=True)
        return self._codec.decode(codes, scale_BT.to(self._device, non_blocking=True))

    def indices(self, indices_BK: torch.Tensor) -> torch.Tensor:
        """Move patch indices."""
        return indices_BK.to(self._device, non_blocking=True)


class Trainer:
    """One run: `train` goes on from the newest checkpoint to the last step.

    Every process of the world has one and calls the same methods; the first writes the folder.
    """

    def __init__(
        self,
        run: Path,
        student: Student,
        codec: Codec,
        config: TrainingConfig,
        clock: StepClock,
        *,
        world: World | None = None,
    ) -> None:
        self._run = run
        self._folder = RunFolder(run, world or World())
        self._student = student
        self._config = config
        self._clock = clock
        self._world = world or World()
        self._device = next(student.parameters()).device
        self._input = StudentInput(config, codec, self._device)
        self._loss_of = make_loss(config.loss, config.target_norm)
        student.checkpoint_blocks = config.gradient_checkpointing
        if self._device.type == "cpu":
            _suit_cpu(student, bf16=config.bf16)
        self._replica = replicate(student, self._world, fsdp=config.fsdp)
        if config.compile:
            # In place, so that names stay; block by block, since sharding acts between blocks.
            for block in blocks_of(student):
                block.compile()
        self._optimiser = make_optimiser(student, weight_decay=config.weight_decay)
        decay = config.ema_decay
        self._average = None if decay is None else MovingAverage(student, decay)

    def train(
        self, batches_from: Callable[[range], Generator[Batch, None, None]], stop: StopRequest
    ) -> dict[str, Any]:
        """Train to the last step; a run that is past it is left as it is.

        Args:
            batches_from: opens the stream of this process's parts of a range of steps.
            stop: asked after each step.

        Returns:
            Counts for the record: steps, images, images a second, share of waiting.

        Raises:
            InterruptedRunError: a stop signal came to any process; a checkpoint was written.
            DataError: the loss or a weight is not finite.
            StorageError: a checkpoint cannot be written.
        """
        first = self._folder.restore(self._student, self._optimiser, self._average)
        total, batch = max(first, self._config.total_steps), self._config.batch
        meter, first_part = Meter(batch, self._world), slice(0, self._config.micro_batch)
        bar = progress_bar(
            "pretrain", total=total * batch, initial=first * batch, shown=self._world.leads
        )
        with (
            explained_worker_deaths(),
            self._folder.opened(first, total, keep=self._config.keep) as folder,
            contextlib.closing(batches_from(range(first, total))) as batches,
            bar,
        ):
            for step, data in enumerate(meter.waiting(batches), start=first + 1):
                if step == first + 1:
                    settle(self._replica, functools.partial(self._loss, data, first_part))
                meter.add(step, *self._step(step, data), self._rate(step), data.keys)
                bar.update(batch)
                asked = stop.agreed(self._world.most)
                stopping = asked.signal_name is not None and step < total
                self._keep(step, folder, meter, now=stopping or step == total)
                if stopping:
                    folder.interrupt(step)
                    asked.raise_if_asked(f"{self._run} has a checkpoint of step {step}")
        return {"steps": total, "steps_done_now": total - first} | meter.summary()

    def _keep(self, step: int, folder: OpenRun, meter: Meter, *, now: bool) -> None:
        """Write the log and a checkpoint when their turn comes, or now; the log always first."""
        checkpoint = now or step % self._config.checkpoint_every == 0
        if checkpoint or step % self._config.log_every == 0:
            folder.log.write(meter.rows(self._clock, folder.last_good))
        if checkpoint:
            folder.checkpoint(step, self._student, self._optimiser, self._average)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step (from 1), as it stands when the step begins."""
        config = self._config
        return learning_rate(
            self._clock.fractional_epoch(step - 1),
            base=config.base_lr,
            batch=config.batch,
            warmup_epochs=config.warmup_epochs,
            epochs=config.epochs,
        )

    def _step(self, step: int, data: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Take one optimiser step.

        Returns:
            The mean loss of this process's part and, where they are clipped, the norm of the
            gradients; both still on the device.
        """
        set_learning_rate(self._optimiser, self._rate(step))
        self._optimiser.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self._device)
        pairs = len(data.keys)
        for start in range(0, pairs, self._config.micro_batch):
            part = slice(start, min(start + self._config.micro_batch, pairs))
            share = (part.stop - part.start) / pairs
            with accumulating(self._replica, last=part.stop == pairs):
                loss = self._loss(data, part) * share
                loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
        clip = self._config.clip_grad
        norm = None if clip is None else clip_gradients(self._student, clip)
        self._optimiser.step()
        if self._average is not None:
            self._average.update()
        return loss_sum, norm

    def _loss(self, data: Batch, part: slice) -> torch.Tensor:
        patches_BKP = self._input.pixels(data.patches_BKP[part])
        targets_BTD = self._input.targets(data.codes_BTC[part], data.scale_BT[part])
        kept_BK = self._input.indices(data.kept_BK[part])
        masked_BM = self._input.indices(data.masked_BM[part])
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bf16):
            pred_BTD = self._replica(patches_BKP, kept_BK, masked_BM)
        return self._loss_of(pred_BTD, targets_BTD)


def _suit_cpu(student: Student, *, bf16: bool) -> None:
    """Have the student compute by what is fastest on this CPU, and keep memory that it frees."""
    keep_freed_memory()
    if bf16:
        spell_out_attention(student)
    elif onednn_is_faster():
        use_onednn(student)
