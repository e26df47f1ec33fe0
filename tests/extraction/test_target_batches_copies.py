"""Copies to a device and back: what arrives is what was sent, whoever waits for it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from milan_pipeline.extraction.target_batches import DeviceCopies

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_on_the_cpu_nothing_is_copied() -> None:
    copies = DeviceCopies(torch.device("cpu"))
    host = torch.arange(6)
    there = copies.to_device(host)
    assert there.data_ptr() == host.data_ptr()
    fetched = copies.to_host([there])
    assert [tensor.data_ptr() for tensor in fetched.wait()] == [host.data_ptr()]


@NEEDS_GPU
def test_many_batches_cross_unharmed() -> None:
    copies = DeviceCopies(torch.device("cuda"))
    sent = [torch.full((64, 3, 64, 64), number, dtype=torch.uint8) for number in range(20)]
    fetched = []
    for host in sent:
        there = copies.to_device(host.pin_memory())
        assert there.is_cuda
        fetched.append(copies.to_host([there + 1, there.float().mean()]))
    with ThreadPoolExecutor(1) as thread:
        for number, (tensor, mean) in enumerate(thread.map(lambda batch: batch.wait(), fetched)):
            assert tensor.is_pinned()
            assert bool((tensor == number + 1).all())
            assert mean.item() == number
