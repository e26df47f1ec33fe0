"""A pretraining step: with a batch that is on the GPU, nothing is copied and nothing is read."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from milan_pipeline.models.baseline_decoders import DECODERS
from milan_pipeline.models.student import SUPERVISE, Student
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.pretraining.pixel_data import PixelTargets
from milan_pipeline.pretraining.task import Pretraining, PretrainingConfig
from milan_pipeline.training.meter import named
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.fitted import FITTED, fitted
from tests.support.students import GRID, TARGET_WIDTH, tiny_student

CONFIG = PretrainingConfig(
    batch=2, epochs=1, warmup_epochs=0, base_lr=1e-4, weight_decay=0.05, bf16=True
)
KEPT, MASKED = 6, GRID[0] * GRID[1] - 6
# Plain; register tokens and layer scale; a norm before the blocks; norms of queries and keys.
FAMILIES = (
    "vit_base_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_radio_v3",
)


def batch_on(device: torch.device) -> Batch:
    return Batch(
        patches_BKP=torch.zeros(2, KEPT, 48, dtype=torch.uint8, device=device),
        kept_BK=torch.zeros(2, KEPT, dtype=torch.int64, device=device),
        masked_BM=torch.zeros(2, MASKED, dtype=torch.int64, device=device),
        codes=[torch.zeros(2, 1, 4 * (1 + KEPT + MASKED), dtype=torch.uint8, device=device)],
        scales=[torch.zeros(2, 0, dtype=torch.float16, device=device)],
        keys=["a", "b"],
    )


def require_no_copy(student: Student, config: PretrainingConfig = CONFIG) -> None:
    """Compute a loss twice; by the second time, what a step needs is on the GPU."""
    codec = fitted(FITTED[0], 1 + KEPT + MASKED)
    with fake_gpu() as copies:
        task = Pretraining(student.to(GPU), {"": codec}, config)
        data = batch_on(GPU)
        task.loss(student, data, slice(0, 2), 1)  # the codec's tables go to the GPU
        copies.made.clear()
        loss = named(task.loss(student, data, slice(0, 1), 2))["loss"]
        assert (loss.device, loss.dtype, copies.made) == (GPU, torch.float32, [])


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_loss_copies_nothing(name: str, decoder: str) -> None:
    require_no_copy(tiny_student(decoder, name=name))


@pytest.mark.parametrize("residual", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_and_norms_return_the_type_that_is_asked_for(name: str, residual: str) -> None:
    """A GPU's autocast has norms return float32, and a CPU's does not."""
    student, found = tiny_student(name=name), set[torch.dtype]()

    def note(module: nn.Module, given: tuple[Any, ...], returned: torch.Tensor) -> None:
        del module, given
        found.add(returned.dtype)

    norms = (each for each in student.modules() if hasattr(each, "normalized_shape"))
    for module in (*student.encoder.blocks, *student.decoder.blocks, *norms):
        module.register_forward_hook(note)
    require_no_copy(student, dataclasses.replace(CONFIG, residual_dtype=residual))
    assert found == {torch.bfloat16 if residual == "bf16" else torch.float32}


@pytest.mark.parametrize("supervise", SUPERVISE)
def test_supervised_tokens_are_chosen_without_a_copy(supervise: str) -> None:
    student = tiny_student(supervise=supervise)
    with fake_gpu() as copies:
        data = batch_on(GPU)
        student.to(GPU)
        copies.made.clear()
        pred = student(data.patches_BKP.float(), data.kept_BK, data.masked_BM)
        assert (pred.shape[-1], pred.device, copies.made) == (TARGET_WIDTH, GPU, [])


def test_the_loss_of_pixels_copies_nothing() -> None:
    with fake_gpu() as copies:
        targets = PixelTargets((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        codes = torch.zeros(2, MASKED, 48, dtype=torch.uint8, device=GPU)
        targets.decode(codes, None)  # mean and std go to the GPU
        copies.made.clear()
        decoded = targets.decode(codes, None)
        assert (decoded.device, copies.made) == (GPU, [])


def test_masks_and_codes_of_a_batch_on_the_host_go_to_the_gpu() -> None:
    student, codec = tiny_student(), fitted(FITTED[0], 1 + KEPT + MASKED)
    with fake_gpu() as copies:
        task = Pretraining(student.to(GPU), {"": codec}, CONFIG)
        task.loss(student, batch_on(GPU), slice(0, 2), 1)
        data = batch_on(torch.device("cpu"))
        copies.made.clear()
        assert named(task.loss(student, data, slice(0, 2), 2))["loss"].device == GPU
        tensors = (data.patches_BKP, data.kept_BK, data.masked_BM, *data.codes, *data.scales)
        sizes = [each.nbytes for each in tensors]
        assert sorted(copy.bytes for copy in copies.made) == sorted(sizes)
