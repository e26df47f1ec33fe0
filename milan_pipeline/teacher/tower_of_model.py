"""Choose the class for an image tower."""

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.configuration import explaining
from milan_pipeline.teacher.timm_visual import TimmVisual
from milan_pipeline.teacher.tower import Tower
from milan_pipeline.teacher.tower_open_clip import ResNetTower, native_tower
from milan_pipeline.teacher.tower_timm import MapTower, TimmTower, is_token_trunk


def tower_of(visual: nn.Module, name: str) -> Tower:
    """Return the tower of an open_clip model's image part or of timm's model.

    Args:
        visual: that part, or a `TimmVisual`.
        name: what errors call it.

    Raises:
        ConfigError: this kind of tower gives no feature for each patch, or its input is not square.
    """
    size = getattr(visual, "image_size", None)
    if isinstance(size, tuple | list) and size[0] != size[1]:
        raise ConfigError(
            f"--teacher {name!r} takes {size[0]}x{size[1]} pixels; choose a square one"
        )
    with explaining(f"--teacher {name!r} has an image tower without tokens", "choose another"):
        if isinstance(visual, VisionTransformer):
            return native_tower(visual, name)
        if isinstance(visual, ModifiedResNet):
            return ResNetTower(visual)
        if isinstance(visual, TimmModel | TimmVisual):
            token = is_token_trunk(visual.trunk)
            return TimmTower(visual, name) if token else MapTower(visual, name)
    raise ConfigError(
        f"--teacher {name!r} has an image tower of the kind {type(visual).__name__}, which is not "
        "known here; choose one of open_clip's own or timm's, such as ViT-B-16"
    )
