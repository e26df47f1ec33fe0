"""Build an image tower from its configuration alone, with random weights or with shapes only."""

import contextlib
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from milan_pipeline.teacher.configuration import explaining

# A tiny text tower, since only the image tower is used.
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}

ARITHMETIC = ("normal", "uniform", "erfinv", "clamp", "mul", "add", "zero", "fill", "copy")
INITIAL = ("normal", "uniform", "constant", "trunc_normal", "kaiming_uniform", "kaiming_normal")
FILLING = frozenset(
    getattr(place, f"{name}_")
    for place, names in ((Tensor, ARITHMETIC), (nn.init, INITIAL))
    for name in names
)
"""What initial weights are made by."""


class Unfilled(TorchFunctionMode):
    """Leaves out what only gives values to tensors that have none, which takes most of the time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch, unless it fills a tensor of the meta device."""
        kwargs = kwargs or {}
        if func in FILLING:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def blank_tower(
    name: str, config: dict[str, Any], *, quick_gelu: bool, size: int | None, device: str = "meta"
) -> Any:
    """Build the image tower of a model.

    Args:
        name: of the teacher, for the message.
        config: of the model.
        quick_gelu: whether its activation is.
        size: pixels along a side of its input; None for its own.
        device: "meta" for shapes without values, "cpu" for random weights.

    Raises:
        ConfigError: open_clip cannot build it.
    """
    vision = config["vision_cfg"]
    if size is not None:
        vision = vision | {"image_size": size}
    with contextlib.ExitStack() as stack:
        failure = f"--teacher {name!r} has a configuration that open_clip cannot build"
        stack.enter_context(explaining(failure, "check its embed_dim and vision_cfg"))
        stack.enter_context(torch.device(device))
        if device == "meta":
            stack.enter_context(Unfilled())
        model = open_clip.CLIP(config["embed_dim"], vision, NO_TEXT, quick_gelu=quick_gelu).eval()
    return model.visual
