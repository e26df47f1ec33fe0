"""What is known of a teacher without its weights: precision, shape, and parts of its identity."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import torch
from torch import nn

from milan_pipeline.core.devices import has_bfloat16
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import Statistics
from milan_pipeline.teacher.content import preprocessing, teacher_content
from milan_pipeline.teacher.load_by_name import (
    architecture_of,
    blank_visual,
    interpolation_of,
    names_of,
)
from milan_pipeline.teacher.prior import settle_prior
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.tower import Tower
from milan_pipeline.teacher.tower_of_model import tower_of

POSITIONS = ("positional_embedding", "pos_embed", "relative_position")
"""Words in the names of position embeddings and of tables of position biases."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def settle_precision(
    spec: TeacherSpec, device: torch.device, *, existing: str | None = None
) -> TeacherSpec:
    """Replace a precision of "auto": by that of existing targets, or by the device's best.

    fp16 is never chosen, since weights may be outside of its range; bfloat16 has that of fp32.

    Args:
        spec: returned unchanged if it names a precision.
        device: where the teacher will run.
        existing: precision of the store that is continued, if there is one.
    """
    if spec.precision != "auto":
        return spec
    found = existing or ("bf16" if has_bfloat16(device) else "fp32")
    return dataclasses.replace(spec, precision=found)


class TeacherShape(NamedTuple):
    """Shapes of a tower, known without its weights: input pixels, token grid, target width."""

    image_size: int
    grid: tuple[int, int]
    width: int


def describe_teacher(spec: TeacherSpec) -> TeacherShape:
    """Read a tower's shape from its configuration alone.

    Raises:
        ConfigError: there is no such model, or it cannot give what the spec asks for.
    """
    tower, settled = settled_tower(blank_visual(spec), spec)
    return TeacherShape(tower.image_size, tower.grid, tower.widths[settled.space])


def visible_identity(spec: TeacherSpec) -> dict[str, dict[str, Any]]:
    """Return the teacher's parts of the identity, as far as they are known without its weights.

    Args:
        spec: its precision must not be "auto".

    Raises:
        ConfigError: as `describe_teacher`.
    """
    visual: Any = blank_visual(spec)
    tower, settled = settled_tower(visual, spec)
    statistics = Statistics(**visual.preprocess_cfg)
    return {
        "teacher": content_of(settled, tower, visual),
        "preprocessing": preprocessing(tower.image_size, statistics, interpolation_of(visual)),
    }


def settled_tower(visual: nn.Module, spec: TeacherSpec) -> tuple[Tower, TeacherSpec]:
    """Return a tower, and its spec with a space and a prior that are not "auto".

    Raises:
        ConfigError: the tower cannot give what the spec asks for.
    """
    tower = tower_of(visual, spec.name)
    if spec.grid is not None and tower.grid != (spec.grid, spec.grid):
        raise ConfigError(
            f"--grid {spec.grid} does not fit --teacher {spec.name!r}, whose tokens are "
            f"{tower.grid[0]}x{tower.grid[1]}; leave out --grid or choose another teacher"
        )
    depth = max(1, len(tower.blocks))
    if spec.layers > depth:
        raise ConfigError(
            f"--layers {spec.layers} is more than --teacher {spec.name!r} has that its final norm "
            f"fits; give {depth} or less"
        )
    own = "projected" if "projected" in tower.widths else "hidden"
    space = own if spec.space == "auto" else spec.space
    if space not in tower.widths:
        raise ConfigError(
            f"--space {space} is not to be had of --teacher {spec.name!r}; choose "
            + " or ".join(tower.widths)
        )
    prior = settle_prior(spec.prior, tower, spec.name)
    return tower, dataclasses.replace(spec, space=space, prior=prior)


def content_of(settled: TeacherSpec, tower: Tower, visual: nn.Module) -> dict[str, Any]:
    """Return `content.teacher_content` of a model with the names that `load_by_name` gave it."""
    names, architecture = names_of(visual, settled), architecture_of(visual)
    return teacher_content(settled, tower, names=names, architecture=architecture)


def hash_weights(visual: nn.Module, *, resampled: bool) -> str:
    """Hash a tower's weights, without position embeddings that were resampled for another grid.

    The last bits of resampled embeddings differ between CPUs, and would change the hash. The grid
    is in the identity, and the hash of the other weights is enough to tell weights apart.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(visual.state_dict().items()):
        if resampled and any(word in key for word in POSITIONS):
            continue
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
