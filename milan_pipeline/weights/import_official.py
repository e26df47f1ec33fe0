"""Make a student from weights under official names."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.models.student import Student
from milan_pipeline.models.vit import build_encoder, encoder_arguments
from milan_pipeline.weights.official import OfficialSizes, load_official, require_fitting

HEAD_WIDTH = 64
DEFAULT_DECODER_HEADS = 16
BASE = "vit_base_patch16_224"


class Stock(NamedTuple):
    """The sizes of a plain ViT that timm has a name for."""

    patch_size: int
    width: int
    depth: int
    heads: int


STOCK = {
    "vit_tiny_patch16_224": Stock(16, 192, 12, 3),
    "vit_small_patch16_224": Stock(16, 384, 12, 6),
    BASE: Stock(16, 768, 12, 12),
    "vit_large_patch16_224": Stock(16, 1024, 24, 16),
    "vit_large_patch14_224": Stock(14, 1024, 24, 16),
    "vit_huge_patch14_224": Stock(14, 1280, 32, 16),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A student's sizes, and what cannot be read from shapes.

    Attributes:
        name: the timm model that the encoder is built upon.
        heads: of the encoder.
        decoder_heads: of the decoder.
        sizes: all the rest.
    """

    name: str
    heads: int
    decoder_heads: int
    sizes: OfficialSizes

    @property
    def encoder(self) -> dict[str, Any]:
        """The arguments of `build_encoder`; sizes that the name implies are None."""
        own = Stock(self.sizes.patch_size, self.sizes.width, self.sizes.depth, self.heads)
        sizes: dict[str, int | None] = own._asdict()
        if STOCK.get(self.name) == own:
            sizes = dict.fromkeys(sizes)
        return {"name": self.name, "image_size": self.sizes.image_size, **sizes}

    @property
    def record(self) -> dict[str, Any]:
        """The same and the decoder's, as the options of `pretrain` that would make this student."""
        encoder = {"student" if key == "name" else key: v for key, v in self.encoder.items()}
        decoder = self.sizes.decoder
        if decoder is None:
            return encoder
        return encoder | {
            "decoder": "prompting",
            "decoder_width": decoder.width,
            "decoder_depth": decoder.depth,
            "decoder_heads": self.decoder_heads,
            "supervise": "all",
        }


def choose_architecture(
    sizes: OfficialSizes, *, name: str | None, heads: int | None, decoder_heads: int | None
) -> Architecture:
    """Choose what the sizes do not determine.

    Args:
        sizes: of the checkpoint.
        name: of the timm model to build upon; None is the one that has these sizes, else ViT-B/16
            with its sizes changed.
        heads: of the encoder; None is what that timm model has, else a head for 64 channels.
        decoder_heads: of the decoder; None is 16.

    Raises:
        ConfigError: a width does not divide into the heads.
    """
    sized_alike = {
        stock_name: stock.heads
        for stock_name, stock in STOCK.items()
        if stock[:3] == (sizes.patch_size, sizes.width, sizes.depth)
    }
    if name is None:
        name = next(iter(sized_alike), BASE)
    heads = heads or sized_alike.get(name)
    if heads is None and sizes.width % HEAD_WIDTH:
        raise ConfigError(
            f"a width of {sizes.width} does not divide into heads of {HEAD_WIDTH}, and a "
            "checkpoint does not say its heads; give --heads"
        )
    heads = heads or sizes.width // HEAD_WIDTH
    decoder_heads = decoder_heads or DEFAULT_DECODER_HEADS
    _require_heads("--heads", heads, sizes.width)
    if sizes.decoder is not None:
        _require_heads("--decoder-heads", decoder_heads, sizes.decoder.width)
    return Architecture(name=name, heads=heads, decoder_heads=decoder_heads, sizes=sizes)


def _require_heads(option: str, heads: int, width: int) -> None:
    if width % heads:
        raise ConfigError(
            f"{option} {heads} does not divide the width {width} of the checkpoint; give the heads "
            "that it was trained with"
        )


class Imported(NamedTuple):
    """A student with a checkpoint's weights; the student is None for an encoder alone."""

    encoder: VisionTransformer
    student: Student | None
    arguments: dict[str, Any]


def build_imported(
    architecture: Architecture, state: Mapping[str, Tensor], *, what: str = "the official state"
) -> Imported:
    """Build the student with the checkpoint's weights, unchanged, positions included.

    Raises:
        ConfigError: timm cannot build it.
        MismatchError: the weights are not its own: a name is missing or unknown, a shape differs.
    """
    encoder, student = _build(architecture)
    if student is None:
        require_fitting(encoder.state_dict(), state, what=what)
        encoder.load_state_dict(dict(state), strict=True)
    else:
        load_official(student, state, what=what)
    return Imported(encoder, student, encoder_arguments(**architecture.encoder))


def _build(architecture: Architecture) -> tuple[VisionTransformer, Student | None]:
    """Build the architecture; its weights are about to be replaced."""
    sizes = architecture.sizes
    if sizes.decoder is None:
        with torch.random.fork_rng(devices=[]):
            return build_encoder(**architecture.encoder), None
    student, _ = build_student(
        StudentSpec.from_content(architecture.record),
        grid=(sizes.side, sizes.side),
        target_width=sizes.decoder.target_width,
        seed=0,
    )
    return student.encoder, student
