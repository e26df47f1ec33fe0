"""What the dry run of a training stage says."""

from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.checkpoints import newest_checkpoint
from milan_pipeline.messages import say
from milan_pipeline.quantities import bytes_text


def say_steps_to_do(folder: Path, total_steps: int) -> None:
    """Say how many steps are left from the newest checkpoint on."""
    newest = newest_checkpoint(folder)
    left = max(0, total_steps - (newest[0] if newest else 0))
    say(f"steps to do: {left} of {total_steps}", steps_to_do=left, steps=total_steps)


def say_images(learnt: int, scored: int, classes: int | None) -> None:
    """Say how many images there are, and of how many classes."""
    say(
        f"images: {learnt} to learn from, {scored} to score on, classes: {classes}",
        images={"train": learnt, "val": scored},
        classes=classes,
    )


def say_sizes(batch: int, lanes: int, parameters: int, *, trained: int | None = None) -> None:
    """Say what a step takes and, where not all of a model is trained, how much of it is."""
    some = "" if trained is None else f", of which trained: {trained}"
    said = f"batch: {batch}, lanes: {lanes}, parameters: {parameters}{some}"
    say(said, batch=batch, lanes=lanes, parameters=parameters, trained=trained or parameters)


def say_space(out: str, **sizes: int) -> None:
    """Say how many bytes checkpoints and the like will take at most, and how many are free."""
    parts = " and ".join(f"{bytes_text(size)} of {name}" for name, size in sizes.items())
    free = storage.free_text(out)
    say(
        f"bytes to write: about {parts}, free: {free}",
        bytes_to_write=sizes,
        free_bytes=storage.free_bytes(out),
    )
