"""Which stages are installed, told from entry points alone: nothing of them is imported."""

from importlib.metadata import entry_points

STAGES_GROUP = "milan_pipeline.stages"


def stage_names() -> list[str]:
    """Name every installed stage, those of other packages included, in alphabetical order."""
    return sorted({entry.name for entry in entry_points(group=STAGES_GROUP)})
