"""Where memory runs out, the option that helps is named with a value."""

import dataclasses

import pytest
import torch

from milan_pipeline.core.out_of_memory import explained, is_out_of_memory


@dataclasses.dataclass
class Extracting:
    batch_size: int | str = 64
    part: str | None = None


@dataclasses.dataclass
class Training:
    batch_size: int = 1024
    micro_batch: int = 256
    gradient_checkpointing: bool = False


@dataclasses.dataclass
class Transcoding:
    device: str = "cuda"


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (MemoryError(), True),
        (
            ImportError("x.so: failed to map segment from shared object: Operation not permitted"),
            False,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (Extracting(), "give --batch-size 32 or less, the same to all parts"),
        (Extracting(batch_size=1), "free some, or give a --device that has more, such as cpu"),
        (Extracting(batch_size="auto"), "free some, or give a --device that has more, such as cpu"),
        (Training(), "give --micro-batch 128 or less or --gradient-checkpointing"),
        (Training(gradient_checkpointing=True), "give --micro-batch 128 or less"),
        (
            Training(batch_size=64, gradient_checkpointing=True),
            "give --micro-batch 32 or less",
        ),
        (
            Training(micro_batch=1),
            "give --gradient-checkpointing, or a --device that has more memory",
        ),
        (
            Training(micro_batch=1, gradient_checkpointing=True),
            "free some, or give a --device that has more, such as cpu",
        ),
        (Transcoding(), "free some, or give a --device that has more, such as cpu"),
    ],
)
def test_the_remedy_is_an_option_of_the_stage_with_a_value(options: object, remedy: str) -> None:
    said = str(explained(torch.OutOfMemoryError("CUDA out of memory. Tried to"), options))
    assert said.startswith("the memory of the device does not suffice (CUDA out of memory")
    assert said.endswith(f"; {remedy}")
