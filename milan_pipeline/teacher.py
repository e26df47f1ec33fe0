"""CLIP image tower -> (targets, prior).

Legend: B batch, C = 3 channels, H, W pixels, N = 1 + L tokens (the image's first), L patches
row-major, D target width.
"""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.open_clip_models import (
    architecture_of,
    blank_visual,
    is_resampled,
    known_statistics,
    load_visual,
    untrained_visual,
)
from milan_pipeline.pixel_statistics import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.precision import DTYPES, settle_precision
from milan_pipeline.priors import PriorReader, settle_prior
from milan_pipeline.teacher_spec import TeacherSpec
from milan_pipeline.tower import Tower
from milan_pipeline.towers import tower_of

POSITIONS = ("positional_embedding", "pos_embed", "relative_position")
"""What the names of position embeddings and of tables of position biases contain."""

PIXEL_PATH = "pillow-rgb, bicubic antialiased, uint8"
"""What the identity calls how images become views."""


class TeacherShape(NamedTuple):
    """What can be known of a tower without its weights: input pixels, token grid, target width."""

    image_size: int
    grid: tuple[int, int]
    width: int


def describe_teacher(spec: TeacherSpec) -> TeacherShape:
    """Read a tower's shape from its configuration alone.

    Raises:
        ConfigError: open_clip knows no such model, or it cannot give what is asked for.
    """
    tower, _ = _settled(blank_visual(spec), spec)
    return TeacherShape(tower.image_size, tower.grid, tower.widths[spec.space])


def visible_identity(spec: TeacherSpec) -> dict[str, dict[str, Any]]:
    """Return the teacher's parts of the identity, as far as they are known without its weights.

    Args:
        spec: with its precision settled.

    Raises:
        ConfigError: as `describe_teacher`.
    """
    visual = blank_visual(spec)
    tower, prior = _settled(visual, spec)
    statistics = known_statistics(spec)
    if spec.norm == "imagenet":
        statistics = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    return {
        "teacher": _content(spec, tower, prior, architecture_of(visual)),
        "preprocessing": {"pixels": PIXEL_PATH, "size": tower.image_size, **statistics},
    }


class Teacher:
    """A frozen CLIP image tower."""

    def __init__(self, visual: nn.Module, spec: TeacherSpec, *, device: str = "cpu") -> None:
        """Take over a tower, whose weights are cast to the precision asked for.

        Raises:
            ConfigError: it cannot give what is asked for.
        """
        self._device = torch.device(device)
        _prepare(self._device)
        self.spec = settle_precision(spec, self._device)
        visual.eval().requires_grad_(requires_grad=False)
        self._tower, self.prior = _settled(visual, spec)
        self._reader = PriorReader(self._tower, self.prior)
        self.image_size = self._tower.image_size
        self.grid = self._tower.grid
        self.width = self._tower.widths[spec.space]
        own: Any = getattr(visual, "preprocess_cfg", {})
        imagenet = spec.norm == "imagenet"
        self.mean = [float(value) for value in (IMAGENET_MEAN if imagenet else own["mean"])]
        self.std = [float(value) for value in (IMAGENET_STD if imagenet else own["std"])]
        # On the device once and for all: copied there for each batch, they would be waited for.
        self._mean_C11, self._std_C11 = (
            torch.tensor(values, device=self._device).view(3, 1, 1)
            for values in (self.mean, self.std)
        )
        self._architecture = architecture_of(visual)
        self.weights_sha256 = _weights_sha256(visual, resampled=is_resampled(visual))
        self._dtype = DTYPES[self.spec.precision]
        visual.to(device=self._device, dtype=self._dtype)
        if spec.compile:
            self._compile()

    @classmethod
    def load(cls, spec: TeacherSpec, *, device: str = "cpu") -> "Teacher":
        """Load an open_clip model and keep its image tower.

        Args:
            spec: which one, and what is asked of it.
            device: where the tower runs.

        Raises:
            ConfigError: the model or its weights cannot be had, or it cannot give what is asked.
        """
        return cls(load_visual(spec), spec, device=device)

    @property
    def device(self) -> torch.device:
        """Where the tower runs."""
        return self._device

    @classmethod
    def untrained(cls, spec: TeacherSpec, *, device: str = "cpu") -> "Teacher":
        """Build a tower with random weights, always the same: as fast as the trained one.

        Raises:
            ConfigError: open_clip knows no such model, or it cannot give what is asked for.
        """
        return cls(untrained_visual(spec), spec, device=device)

    def identity(self) -> dict[str, Any]:
        """Return the teacher's part of the identity."""
        content = _content(self.spec, self._tower, self.prior, self._architecture)
        return content | {"weights_sha256": self.weights_sha256}

    def preprocessing(self) -> dict[str, Any]:
        """Return the identity's part on what the tower is given."""
        return {
            "pixels": PIXEL_PATH,
            "size": self.image_size,
            "mean": self.mean,
            "std": self.std,
        }

    @torch.no_grad()  # not inference_mode: on the CPU it slows bfloat16 down several times
    def __call__(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute targets and priors (MILAN, arXiv 2208.06049, sections 3.1 and 3.3).

        Args:
            pixels_BCHW: uint8 views of the tower's input size.

        Returns:
            targets_BND: float32, first of the image, which is CLS where the tower pools by it, then
                of every patch, through the same final norm and, if asked for, projection.
            prior_BL: float32, of every patch; see `priors.PriorReader`.
        """
        with self._reader.reading():
            targets_BND = self._tower.features(
                self.normalise(pixels_BCHW), layers=self.spec.layers, space=self.spec.space
            )
        prior_BL = self._reader.read(len(targets_BND), targets_BND.device)
        return targets_BND.float(), prior_BL

    def normalise(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels into the tower's input type, with mean and std of `preprocessing`."""
        pixels = pixels_BCHW.to(self._device, non_blocking=True).float().div_(255)
        return pixels.sub_(self._mean_C11).div_(self._std_C11).to(self._dtype)

    def _compile(self) -> None:
        """Compile the blocks, but for those whose attention is read as Python sees it.

        For each shape by itself: code for any shape would depend on which ones came before.
        """
        watched = {id(attention) for attention in self._reader.watches}
        pairs = zip(self._tower.blocks, self._tower.attentions, strict=True)
        for block, attention in pairs:
            if id(attention) not in watched:
                block.compile(dynamic=False)


def _prepare(device: torch.device) -> None:
    """Settle what torch keeps for the whole process."""
    # By default cuDNN's convolutions round fp32 to 10 bits: fp32 is to be fp32, on every device.
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cuda" and device.index is not None:
        # Whatever names no device would otherwise take memory on the first one, too.
        torch.cuda.set_device(device)


def _settled(visual: nn.Module, spec: TeacherSpec) -> tuple[Tower, str]:
    """Return a tower and the prior it gives, if it can do what is asked of it."""
    tower = tower_of(visual, spec.name)
    if spec.grid is not None and tower.grid != (spec.grid, spec.grid):
        raise ConfigError(
            f"--grid {spec.grid} cannot be had of --teacher {spec.name!r}, whose tokens are "
            f"{tower.grid[0]}x{tower.grid[1]}; leave --grid away or choose another teacher"
        )
    depth = max(1, len(tower.blocks))
    if spec.layers > depth:
        raise ConfigError(
            f"--layers {spec.layers} is more than --teacher {spec.name!r} has that its final norm "
            f"fits; give {depth} or less"
        )
    if spec.space not in tower.widths:
        raise ConfigError(
            f"--space {spec.space} is not to be had of --teacher {spec.name!r}; choose "
            + " or ".join(tower.widths)
        )
    return tower, settle_prior(spec.prior, tower, spec.name)


def _content(
    spec: TeacherSpec, tower: Tower, prior: str, architecture: str | None
) -> dict[str, Any]:
    """Return what shapes targets, but for the weights.

    Heads, activation and pooling are not told by the weights, and a local folder may change them.
    They are named, for people to read; the hash of the architecture tells these and all others.
    """
    return {
        "name": spec.name_in_identity,
        "pretrained": spec.tag_in_identity,
        "architecture": architecture,
        "heads": tower.heads,
        "pooling": tower.pooling,
        "pool_heads": getattr(tower.pool_attention, "num_heads", None),
        "activation": tower.activation,
        "precision": spec.precision,
        "compiled": spec.compile,
        "grid": list(tower.grid),
        "layers": spec.layers,
        "space": spec.space,
        "width": tower.widths[spec.space],
        "prior": prior,
    }


def _weights_sha256(visual: nn.Module, *, resampled: bool) -> str:
    """Hash a tower's weights, without position embeddings that were resampled for another grid.

    Resampling rounds as the CPU's kernels do, so that one machine's last bits would be another's
    other weights. The grid is in the identity, and the other weights tell weights apart.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(visual.state_dict().items()):
        if resampled and any(word in key for word in POSITIONS):
            continue
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
