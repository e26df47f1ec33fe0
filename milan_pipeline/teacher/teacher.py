"""Image encoder -> (targets, prior).

Legend: B batch, C = 3 channels, H, W pixels, N = 1 + L tokens (that of the image first), L patches
row-major, D target width.
"""

from typing import Any

import torch
from torch import nn

from milan_pipeline.core.devices import compute_float32_exactly
from milan_pipeline.images.crops import Pixels
from milan_pipeline.images.statistics import Statistics
from milan_pipeline.teacher.content import preprocessing
from milan_pipeline.teacher.description import (
    DTYPES,
    content_of,
    hash_weights,
    settle_precision,
    settled_tower,
)
from milan_pipeline.teacher.load_by_name import (
    interpolation_of,
    is_resampled,
    load_visual,
    untrained_visual,
)
from milan_pipeline.teacher.prior import PriorReader
from milan_pipeline.teacher.spec import TeacherSpec


class Teacher:
    """A frozen image encoder."""

    def __init__(self, visual: nn.Module, spec: TeacherSpec, *, device: str = "cpu") -> None:
        """Take a tower and cast its weights to the precision of the spec.

        Raises:
            ConfigError: the tower cannot give what the spec asks for.
        """
        self._device = torch.device(device)
        _prepare(self._device)
        visual.eval().requires_grad_(requires_grad=False)
        self._tower, settled = settled_tower(visual, settle_precision(spec, self._device))
        self.spec, self.prior = settled, settled.prior
        self._reader = PriorReader(self._tower, self.prior)
        self.image_size = self._tower.image_size
        self.grid = self._tower.grid
        self.width = self._tower.widths[settled.space]
        own: Any = visual.preprocess_cfg
        mean, std = spec.statistics or (own["mean"], own["std"])
        self.mean, self.std = list(map(float, mean)), list(map(float, std))
        self.interpolation = interpolation_of(visual)
        self._pixels = Pixels(self.mean, self.std, self._device, scaling="pixels")
        self._content = content_of(settled, self._tower, visual)
        self.weights_sha256 = hash_weights(visual, resampled=is_resampled(visual))
        self._dtype = DTYPES[self.spec.precision]
        visual.to(device=self._device, dtype=self._dtype)
        if spec.compile:
            self._compile()

    @classmethod
    def load(cls, spec: TeacherSpec, *, device: str = "cpu") -> "Teacher":
        """Load a model by name and keep its image tower.

        Args:
            spec: which model, and which targets it is to give.
            device: where the tower runs.

        Raises:
            ConfigError: the model or its weights cannot be loaded, or the tower cannot give what
                the spec asks for.
        """
        return cls(load_visual(spec), spec, device=device)

    @property
    def device(self) -> torch.device:
        """Where the tower runs."""
        return self._device

    @classmethod
    def untrained(cls, spec: TeacherSpec, *, device: str = "cpu") -> "Teacher":
        """Build a tower with random weights, always the same ones; it is as fast as a trained one.

        Raises:
            ConfigError: there is no such model, or it cannot give what the spec asks for.
        """
        return cls(untrained_visual(spec), spec, device=device)

    def identity(self) -> dict[str, Any]:
        """Return the teacher's part of the identity."""
        return self._content | {"weights_sha256": self.weights_sha256}

    def preprocessing(self) -> dict[str, Any]:
        """Return the identity's part on the tower's input."""
        statistics = Statistics(self.mean, self.std)
        return preprocessing(self.image_size, statistics, self.interpolation)

    @torch.no_grad()  # not inference_mode: on the CPU it slows bfloat16 down several times
    def __call__(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute targets and priors (MILAN, arXiv 2208.06049, sections 3.1 and 3.3).

        Args:
            pixels_BCHW: uint8 views of the tower's input size.

        Returns:
            targets_BND: float32; first that of the image (CLS, if the tower pools by it), then
                those of the patches, all through the same final norm and, if asked for, projection.
            prior_BL: float32, priors of the patches; see `prior.PriorReader`.
        """
        with self._reader.reading():
            targets_BND = self._tower.features(
                self.normalise(pixels_BCHW), layers=self.spec.layers, space=self.spec.space
            )
        prior_BL = self._reader.read(len(targets_BND), targets_BND.device)
        return targets_BND.float(), prior_BL

    def normalise(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels into the tower's input type, with mean and std of `preprocessing`."""
        return self._pixels(pixels_BCHW).to(self._dtype)

    def _compile(self) -> None:
        """Compile the blocks, except for those whose attention is read while Python runs them.

        Each input shape is compiled separately: code for several shapes would depend on their
        order.
        """
        watched = {id(attention) for attention in self._reader.watches}
        pairs = zip(self._tower.blocks, self._tower.attentions, strict=True)
        for block, attention in pairs:
            if id(attention) not in watched:
                block.compile(dynamic=False)


def _prepare(device: torch.device) -> None:
    """Set options of torch that hold for the whole process."""
    compute_float32_exactly()
    if device.type == "cuda" and device.index is not None:
        # Otherwise, code that names no device would take memory on the first one, too.
        torch.cuda.set_device(device)
