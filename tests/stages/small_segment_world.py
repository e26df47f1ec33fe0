"""What the processes of a segmentation of several processes do."""

import torch

from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.evaluate.segmentation.task import Segmentation
from stages.segment.command import Segment
from stages.segment.run import train


class Breaking(Segmentation):
    """Segmentation that fails at some steps, once at each."""

    breaks: tuple[int, ...] = ()
    last: "Breaking | None" = None

    def loss(self, replica, data, part, step):
        Breaking.last = self
        if step in Breaking.breaks:
            Breaking.breaks = tuple(set(Breaking.breaks) - {step})
            raise ZeroDivisionError
        return super().loss(replica, data, part, step)


def segment_in_world(world, options, breaks):
    """Train a run, breaking off at some steps and beginning again.

    Args:
        world: the processes.
        options: of `Segment`.
        breaks: steps at which every process fails once.

    Returns:
        The model's buffers as this process's last evaluation has seen them, as lists.
    """
    Breaking.breaks = breaks
    train.__globals__["Segmentation"] = Breaking
    for _ in range(len(breaks) + 1):
        with stop_request() as stop:
            try:
                train(Segment(**options), torch.device("cpu"), world, stop, lambda: None)
            except ZeroDivisionError:
                continue
    assert Breaking.last is not None
    return {name: value.tolist() for name, value in Breaking.last.model.named_buffers()}
