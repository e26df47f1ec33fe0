"""Teacher-free MILAN pretraining of vision transformers from cached CLIP targets.

What stands in `__all__` is for users, each loaded when it is asked for; `docs/python.md` shows it.
All else is internal and may move.
"""

import importlib
from typing import TYPE_CHECKING, Any

from milan_pipeline import errors

if TYPE_CHECKING:
    from milan_pipeline.cli.run_stage import StageResult, run_stage
    from milan_pipeline.cli.stage_functions import (
        compare,
        doctor,
        export,
        extract_targets,
        finetune,
        import_checkpoint,
        index,
        inspect,
        measure_codecs,
        pack_images,
        pack_targets,
        plan,
        pretrain,
        probe,
        recipes,
        segment,
        status,
        submit,
        transcode,
        verify,
    )
    from milan_pipeline.data.viewed_pairs import PairDataset, ViewedPair, iterate_pairs
    from milan_pipeline.encoders.load import load_encoder
    from milan_pipeline.encoders.readers import TimmModel, load_timm_model
    from milan_pipeline.evaluate.image_transform import image_transform
    from milan_pipeline.evaluate.scores_file import find_results
    from milan_pipeline.shards.manifest import load_manifest
    from milan_pipeline.targets.store import StoredTargets, UnitTargets, open_targets
    from milan_pipeline.teacher.spec import TeacherSpec
    from milan_pipeline.teacher.teacher import Teacher
    from milan_pipeline.weights.loaded_run import load_run

__all__ = [
    "PairDataset",
    "StageResult",
    "StoredTargets",
    "Teacher",
    "TeacherSpec",
    "TimmModel",
    "UnitTargets",
    "ViewedPair",
    "compare",
    "doctor",
    "errors",
    "export",
    "extract_targets",
    "find_results",
    "finetune",
    "image_transform",
    "import_checkpoint",
    "index",
    "inspect",
    "iterate_pairs",
    "load_encoder",
    "load_manifest",
    "load_run",
    "load_timm_model",
    "measure_codecs",
    "open_targets",
    "pack_images",
    "pack_targets",
    "plan",
    "pretrain",
    "probe",
    "recipes",
    "run_stage",
    "segment",
    "status",
    "submit",
    "transcode",
    "verify",
]

_STAGES = (
    "pack_images", "index", "extract_targets", "transcode", "pack_targets", "pretrain", "probe",
    "finetune", "compare", "recipes", "segment", "submit", "import_checkpoint", "export", "plan",
    "verify", "status", "measure_codecs", "inspect", "doctor",
)  # fmt: skip
_HOMES = {
    "PairDataset": "data.viewed_pairs",
    "image_transform": "evaluate.image_transform",
    "StoredTargets": "targets.store",
    "Teacher": "teacher.teacher",
    "TeacherSpec": "teacher.spec",
    "TimmModel": "encoders.readers",
    "UnitTargets": "targets.store",
    "ViewedPair": "data.viewed_pairs",
    "find_results": "evaluate.scores_file",
    "iterate_pairs": "data.viewed_pairs",
    "load_encoder": "encoders.load",
    "load_manifest": "shards.manifest",
    "load_run": "weights.loaded_run",
    "load_timm_model": "encoders.readers",
    "open_targets": "targets.store",
    "StageResult": "cli.run_stage",
    "run_stage": "cli.run_stage",
    **dict.fromkeys(_STAGES, "cli.stage_functions"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"milan_pipeline has no {name!r}")
    return getattr(importlib.import_module(f"milan_pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
