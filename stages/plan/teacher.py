"""What `plan` knows of the teacher: by its configuration, or by building it, or by timing it.

Torch takes seconds to load. It is loaded only to time a teacher, to look at the device that was
asked for, and for a teacher that must be built to be known.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from milan_pipeline.core.progress import waiting
from milan_pipeline.planning.foretold_teacher import foretold
from milan_pipeline.stages.plan.command import PlanTargets
from milan_pipeline.teacher.spec import TeacherSpec

if TYPE_CHECKING:
    from milan_pipeline.planning.teacher_speed import TeacherSpeed

Measure = Callable[..., Iterator["TeacherSpeed"]]
"""As `teacher_speed.measure_speeds`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownTeacher:
    """What is known of a teacher without its weights.

    Attributes:
        identity: its parts of the targets' identity, with as many bytes as extraction will write.
        multiply_adds: counts those of an image's forward pass.
    """

    identity: dict[str, dict[str, Any]]
    multiply_adds: Callable[[], float]


def known_teacher(spec: TeacherSpec) -> KnownTeacher:
    """Return what is known of a teacher; torch is loaded where it must be built to be known.

    Raises:
        ConfigError: there is no such model, or it cannot give what the spec asks for.
    """
    light = foretold(spec)
    if light is not None:
        return KnownTeacher(identity=light.identity(), multiply_adds=light.multiply_adds)
    from milan_pipeline.planning.teacher_speed import multiply_adds
    from milan_pipeline.teacher.description import visible_identity

    return KnownTeacher(
        identity=visible_identity(spec), multiply_adds=functools.partial(multiply_adds, spec)
    )


def settled_precision(config: PlanTargets) -> TeacherSpec:
    """Return the teacher in the precision that extraction would take on the device.

    It stays "auto" where nobody asked for the device or for a time.

    Raises:
        ConfigError: the device is unknown.
    """
    if config.device == "auto" and not config.measure:
        return config.teacher_spec
    from milan_pipeline.core.devices import pick_device
    from milan_pipeline.teacher.description import settle_precision

    return settle_precision(config.teacher_spec, pick_device(config.device))


def timed_teacher(
    config: PlanTargets, spec: TeacherSpec, measure: Measure | None = None
) -> Iterator["TeacherSpeed"]:
    """Time a teacher on the device, in every precision.

    Args:
        config: the device, the batch sizes and the seconds.
        spec: the teacher.
        measure: times it; None for `measure_speeds`.

    Raises:
        ConfigError: the device is unknown.
    """
    from milan_pipeline.core.devices import pick_device
    from milan_pipeline.planning.teacher_speed import measure_speeds, usual_batches

    device = str(pick_device(config.device))
    with waiting("plan: timing the teacher"):
        yield from (measure or measure_speeds)(
            spec,
            device=device,
            batches=config.measure_batch or usual_batches(device),
            seconds=config.measure_seconds,
        )
