"""A segmenter: a ViT and a head, which is UPerNet on maps of four strides, or linear.

UPerNet (arXiv 1807.10221) is segmentation_models_pytorch's decoder, which normalises each map that
it is given. Its input is that of BEiT (arXiv 2106.08254) and MAE (2111.06377): patches after four
blocks of the ViT, up- or downsampled to strides of 4, 8, 16 and 32 pixels if a patch has 16.

Legend: B batch, C channels, H height, W width, h and w rows and columns of patches, E width of the
ViT, Y classes.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from milan_pipeline.core.schema import Positive
from milan_pipeline.errors import ConfigError, reason_of
from milan_pipeline.models.drop_path import share_graphs
from milan_pipeline.models.positions import positions_for
from milan_pipeline.models.vit import CANNOT_BUILD

DEPTHS = (1 / 3, 1 / 2, 2 / 3, 1.0)  # blocks 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24, from 0
AUXILIARY_AT = 2
DROPOUT, HEAD_STD, AUXILIARY_CHANNELS = 0.1, 0.01, 256  # mmsegmentation's
HEADS = ("upernet", "linear")


class Logits(NamedTuple):
    """A segmenter's output for each pixel.

    Attributes:
        main_BYHW: float32, as large as the images.
        auxiliary_BYHW: of the auxiliary head, if there is one and in training only.
    """

    main_BYHW: Tensor
    auxiliary_BYHW: Tensor | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What comes after the ViT.

    Attributes:
        head: "upernet", or "linear": BatchNorm and a 1x1 convolution, as in DINOv2 (2304.07193).
        channels: of UPerNet.
        classes: Y.
    """

    head: str
    channels: Positive
    classes: Positive


class Pyramid(nn.ModuleList):
    """Resamples four maps of equal size to strides of 1/4, 1/2, 1 and 2 patches."""

    def __init__(self, width: int) -> None:
        quadruple = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
        )
        double = nn.ConvTranspose2d(width, width, 2, stride=2)
        half = nn.MaxPool2d(2, ceil_mode=True)  # a map of one patch keeps its size
        super().__init__([quadruple, double, nn.Identity(), half])

    def forward(self, maps_BEhw: list[Tensor]) -> list[Tensor]:
        """Return the four maps, the finest first."""
        return [scale(map_BEhw) for scale, map_BEhw in zip(self, maps_BEhw, strict=True)]


class UPerNetHead(nn.Module):
    """UPerNet on a plain ViT's maps, with an auxiliary head on the third in training.

    The auxiliary head is 256 wide, or as wide as UPerNet if that is less.
    """

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(width)
        # The decoder does not use its first two maps.
        self.decoder = UPerNetDecoder([width] * 6, decoder_channels=channels)
        self.classifier = _classifier(channels, classes)
        inner = min(AUXILIARY_CHANNELS, channels)
        self.auxiliary = nn.Sequential(
            Conv2dReLU(width, inner, kernel_size=3, padding=1), *_classifier(inner, classes)
        )

    def forward(self, maps_BEhw: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return main logits at a quarter of a patch's stride, and in training the auxiliary."""
        fine = self.pyramid(maps_BEhw)
        main = self.classifier(self.decoder([*fine[:1] * 2, *fine]))
        return main, self.auxiliary(maps_BEhw[AUXILIARY_AT]) if self.training else None


class LinearHead(nn.Module):
    """BatchNorm and a 1x1 convolution on the last map."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.classifier = _classifier(width, classes)[-1]

    def forward(self, maps_BEhw: list[Tensor]) -> tuple[Tensor, None]:
        """Return logits for each patch, and no auxiliary ones."""
        return self.classifier(self.norm(maps_BEhw[-1])), None


class Segmenter(nn.Module):
    """Logits for each pixel of images whose sides are multiples of a patch.

    Args:
        encoder: a timm ViT without a head.
        spec: of what comes after it.
    """

    def __init__(self, encoder: Any, spec: HeadSpec) -> None:
        super().__init__()
        self.encoder = encoder
        width, self._deep = int(encoder.num_features), spec.head == "upernet"
        self._blocks = depths_of(len(encoder.blocks)) if self._deep else [len(encoder.blocks) - 1]
        if self._deep:
            self.head: nn.Module = UPerNetHead(width, spec.channels, spec.classes)
            # The decoder norms its maps itself: this norm gets no gradients, and DDP would wait.
            encoder.norm.requires_grad_(False)
        else:
            self.head = LinearHead(width, spec.classes)

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels: the images' sides must be multiples of it."""
        return int(max(self.encoder.patch_embed.patch_size))

    def forward(self, images_BCHW: Tensor) -> Logits:
        """Return the logits of each pixel."""
        height, width = images_BCHW.shape[-2:]
        with positions_for(self.encoder, (height // self.patch_size, width // self.patch_size)):
            maps = self.encoder.forward_intermediates(
                images_BCHW,
                indices=sorted(set(self._blocks)),
                norm=not self._deep,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        of_block = dict(zip(sorted(set(self._blocks)), maps, strict=True))
        main, auxiliary = self.head([of_block[block] for block in self._blocks])
        size = (height, width)
        return Logits(
            _enlarged(main, size), None if auxiliary is None else _enlarged(auxiliary, size)
        )


def depths_of(blocks: int) -> list[int]:
    """Return the four blocks, from 0, whose patches are used; a shallow ViT repeats some."""
    return [math.ceil(blocks * share - 1e-9) - 1 for share in DEPTHS]


def make_segmenter(
    arguments: Mapping[str, Any],
    spec: HeadSpec,
    *,
    state: Mapping[str, Tensor] | None = None,
    drop_path: float = 0.0,
    freeze: bool = False,
    seed: int = 0,
) -> Segmenter:
    """Put a head on an encoder.

    Args:
        arguments: `timm.create_model` makes the encoder of them.
        spec: of the head.
        state: the encoder's weights; None leaves random ones, to be replaced with the head's later.
        drop_path: rate of stochastic depth at the last block.
        freeze: train the head alone.
        seed: of the head's weights; torch's global random state is left as it was.

    Returns:
        The segmenter, on the CPU. It takes images of any size: positions are resampled as
        the official code does it for its one size (see `positions`).

    Raises:
        ConfigError: the encoder cannot give maps of its patches.
    """
    name = arguments["model_name"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            encoder: Any = timm.create_model(
                **{**arguments, "drop_path_rate": drop_path, "dynamic_img_size": True}
            )
        except CANNOT_BUILD as error:
            raise ConfigError(
                f"--encoder of the model {name!r} does not take images of any size "
                f"({reason_of(error)}); choose a plain ViT such as 'vit_base_patch16_224'"
            ) from error
        if not hasattr(encoder, "forward_intermediates"):
            raise ConfigError(
                f"--encoder of the model {name!r} does not show its blocks' tokens; choose a plain "
                "ViT such as 'vit_base_patch16_224'"
            )
        if state is not None:
            encoder.load_state_dict(dict(state), strict=True)
        encoder.requires_grad_(not freeze)
        share_graphs(encoder)
        return Segmenter(encoder, spec)


def _classifier(channels: int, classes: int) -> nn.Sequential:
    last = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(last.weight, std=HEAD_STD)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(DROPOUT), last)


def _enlarged(logits_BYhw: Tensor, size: tuple[int, ...]) -> Tensor:
    """Enlarge logits to the images' size, in float32."""
    return F.interpolate(logits_BYhw.float(), size=size, mode="bilinear", align_corners=False)
