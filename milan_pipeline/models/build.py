"""Build a student from what its options say: the spec, the sizes that fit, seeded weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.models.baseline_decoders import make_decoder
from milan_pipeline.models.student import Student
from milan_pipeline.models.vit import (
    build_encoder,
    encoder_arguments,
    own_sizes,
    settled_sizes,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """What a student is, apart from the targets that it learns from.

    Attributes:
        name: of a ViT in timm.
        image_size: height and width of its views, in pixels; None is what fits the targets where
            `patch_size` is given, else the name's own.
        patch_size: in pixels; None is the name's own, as for the next three.
        width: of the encoder.
        depth: blocks of the encoder.
        heads: attention heads of the encoder.
        decoder: see `baseline_decoders.make_decoder`, as for the next three.
        decoder_width: channels inside the decoder.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        supervise: which tokens it predicts; see `student.supervised_slice`.
    """

    name: str
    image_size: int | None = None
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    decoder: str = "prompting"
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    supervise: str = "all"

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "StudentSpec":
        """Read the options of `pretrain`, as its record has them; those not there are defaults."""
        names = {field.name for field in dataclasses.fields(cls)} & content.keys()
        return cls(name=content["student"], **{name: content[name] for name in names})

    def sizes(self, grid: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return the image size and the patch size, in pixels; `grid` is the targets'.

        Raises:
            ConfigError: there is no such ViT, or the sizes do not divide.
        """
        own_image, own_patch = own_sizes(self.name)
        patch = self.patch_size or own_patch
        fitting = patch * grid[0] if grid and self.patch_size else own_image
        image = self.image_size or fitting
        if image % patch:
            raise ConfigError(
                f"--image-size {image} is no multiple of the student's patches of {patch} pixels; "
                f"give {patch * max(1, round(image / patch))} or another --patch-size"
            )
        return image, patch


def settled_student(content: Mapping[str, Any], grid: tuple[int, int] | None) -> dict[str, int]:
    """Return the sizes of a recorded run's student, also those that its options left open.

    Args:
        content: the options, as the run's record has them.
        grid: rows and columns of the targets' patches; None where there are no targets.

    Raises:
        ConfigError: timm cannot make the student.
    """
    spec = StudentSpec.from_content(content)
    image, patch = spec.sizes(grid)
    return settled_sizes(
        encoder_arguments(
            spec.name, image_size=image, patch_size=patch, width=spec.width, depth=spec.depth,
            heads=spec.heads,
        )
    )  # fmt: skip


def build_student(
    spec: StudentSpec, *, grid: tuple[int, int], target_width: int, seed: int
) -> tuple[Student, dict[str, Any]]:
    """Build a student for targets of a grid and width, its weights a function of the seed.

    Args:
        spec: what it is.
        grid: rows and columns of the targets' patches.
        target_width: D, channels of a target.
        seed: of the weights; torch's global random state is left as it was.

    Returns:
        The student, and the arguments with which timm makes its encoder again.

    Raises:
        ConfigError: the sizes do not fit each other, or the targets.
        MismatchError: the targets' grid is not square.
    """
    arguments: dict[str, Any] = {
        "image_size": _fitting_image_size(spec, grid),
        "patch_size": spec.patch_size,
        "width": spec.width,
        "depth": spec.depth,
        "heads": spec.heads,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(spec.name, **arguments)
        decoder = make_decoder(
            spec.decoder,
            encoder.embed_dim,
            grid,
            target_width,
            width=spec.decoder_width,
            depth=spec.decoder_depth,
            heads=spec.decoder_heads,
        )
    return Student(encoder, decoder, spec.supervise), encoder_arguments(spec.name, **arguments)


def _fitting_image_size(spec: StudentSpec, grid: tuple[int, int]) -> int:
    """Return the student's image size; refuse a grid that is not the targets'."""
    rows, columns = grid
    if rows != columns:
        raise MismatchError(f"the targets have a {rows}x{columns} grid; take square ones")
    image, patch = spec.sizes(grid)
    side = image // patch
    if side != rows:
        raise ConfigError(
            f"--student {spec.name!r} at {image} pixels in patches of {patch} has a {side}x{side} "
            f"grid, the targets have {rows}x{columns}; give --image-size {patch * rows}, or "
            f"targets of a {side}x{side} grid, or --resample-targets"
        )
    return image
