"""Which stages are installed, told from entry points alone: nothing of them is imported."""

from importlib.metadata import entry_points

STAGES_GROUP = "milan_pipeline.stages"

PIPELINE = (
    *("pack-images", "index"),
    *("plan", "extract-targets", "status", "verify", "codecs", "transcode", "pack-targets"),
    *("import-checkpoint", "pretrain", "probe", "finetune", "segment", "compare", "inspect"),
    *("export", "submit"),
)
"""The order in which `--help` lists stages; those of other packages follow."""


def stage_names() -> list[str]:
    """Name every installed stage, those of other packages included, in alphabetical order."""
    return sorted({entry.name for entry in entry_points(group=STAGES_GROUP)})


def in_pipeline_order(names: list[str]) -> list[str]:
    """Put stages into the order in which a pipeline has them; others last, as they come."""
    known = [name for name in PIPELINE if name in names]
    return known + [name for name in names if name not in known]
