"""Names of teachers that a shell offers, read from the packages' files: imports take seconds."""

from milan_pipeline.models.timm_names import tagged_vit_names
from milan_pipeline.teacher.open_clip_tables import architecture_names
from milan_pipeline.teacher.spec import HUB, LOCAL, RUN, TIMM


def teacher_names() -> list[str]:
    """Return names of models of open_clip and timm, and how names of other places begin."""
    of_timm = [f"{TIMM}{name}" for name in tagged_vit_names()]
    return [*architecture_names(), HUB, LOCAL, RUN, *of_timm]
