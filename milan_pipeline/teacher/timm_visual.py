"""A model of timm that is a teacher by itself, with the face of open_clip's `TimmModel`."""

from typing import Any

from torch import nn


class TimmVisual(nn.Module):
    """A model of timm without a classifier.

    Attributes:
        trunk: the model.
        head: None: there is no projection into a space that is shared with text.
        image_size: height and width of its input, in pixels.
        architecture: hash of what it was built from.
        resampled: whether loading changed its positions to another size.
    """

    head = None
    architecture: str | None = None
    resampled = False

    def __init__(self, trunk: Any) -> None:
        """Take a model; one that normalises its CLS token gives that as the image's feature.

        timm has DINOv3 average its patches, which its authors do not: their weights are trained
        with the CLS token as the image's feature.
        """
        super().__init__()
        self.trunk = trunk
        self.image_size = _size_of(trunk)
        norm = getattr(trunk, "norm", None)
        has_cls = getattr(trunk, "cls_token", None) is not None
        if has_cls and trunk.global_pool == "avg" and not isinstance(norm, nn.Identity):
            trunk.global_pool = "token"

    def set_input_size(self, size: int) -> None:
        """Have it take another input, whose positions timm resamples."""
        if hasattr(self.trunk, "set_input_size"):
            self.trunk.set_input_size((size, size))
        self.image_size = (size, size)


def _size_of(trunk: Any) -> tuple[int, int]:
    own = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    height, width = own or trunk.pretrained_cfg["input_size"][1:]
    return int(height), int(width)
