"""Runs that are done, written by hand with tiny models, and the model cards of their exports."""

import json
from pathlib import Path
from typing import Any

import timm

from milan_pipeline.evaluate.classification.model import ClassifierDescription, write_classifier
from milan_pipeline.evaluate.segmentation.files import SegmenterDescription, write_segmenter
from milan_pipeline.evaluate.segmentation.model import HeadSpec, make_segmenter
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.provenance.run_state import write_state
from tests.support.cli import run_cli
from tests.support.pictures import write_picture
from tests.support.students import perturbed

CLASSES = ("ant", "bee", "an owl")
VIT: dict[str, Any] = {
    "model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 16,
    "depth": 4, "num_heads": 2,
}  # fmt: skip
PIXELS: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


def write_record(run: Path, stage: str, **more: Any) -> None:
    """Write the record and the state of a run that is done."""
    record = {
        "stage": stage, "state": "done", "content": {}, "extent": {"val": "6 images"},
        "config": {"encoder": "timm:test_vit", "random_init": False}, "counts": {"steps": 7},
        "inputs": {"encoder": "timm:test_vit", "train": "9 images"},
        "versions": {"torch": "1.2.3"}, "started": "2026-01-01T00:00:00Z",
    } | more  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_bytes(record_bytes(record))
    write_state(run, "done", step=7, total_steps=7)


def classifier_run(run: Path, *, pool: str = "avg", classes: tuple[str, ...] = CLASSES) -> Any:
    """Write a run of `finetune`; return its model."""
    arguments = VIT | {"global_pool": pool, "num_classes": len(CLASSES)}
    model: Any = perturbed(timm.create_model(**arguments)).eval()
    write_record(run, "finetune")
    description = ClassifierDescription(
        arguments=arguments, crop_pct=0.8, classes=classes, **PIXELS
    )
    write_classifier(run, "best", model.state_dict(), description)
    rows: list[dict[str, Any]] = [
        {"step": 5, "top1": 50.0, "intervals": {"top1": [40.38, 59.62]}},
        {"step": 7, "top1": 40.0},
    ]
    text = "".join(json.dumps(row | {"val": "6 images"}) + "\n" for row in rows)
    (run / "evaluations.jsonl").write_text(text)
    return model


def segmenter_run(run: Path, head: str = "linear", classes: tuple[str, ...] = CLASSES) -> Any:
    """Write a run of `segment`; return its model."""
    arguments = VIT | {"num_classes": 0, "global_pool": "token"}
    spec = HeadSpec(head=head, channels=8, classes=3)
    model = perturbed(make_segmenter(arguments, spec)).eval()
    write_record(run, "segment")
    description = SegmenterDescription(arguments=arguments, spec=spec, classes=classes, **PIXELS)
    write_segmenter(run, "best", model.state_dict(), description)
    return model


def export(run: Path, form: str, out: Path, *more: object, code: int = 0) -> Path:
    """Run the stage; return the folder of the export."""
    run_cli("export", run, "--form", form, "--out", out, *more, code=code)
    return out


def run_snippet(folder: Path, monkeypatch: Any) -> None:
    """Run what the model card says, in the folder and with a picture, as its reader would."""
    write_picture(folder / "image.jpg", seed=3)
    monkeypatch.chdir(folder)
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1]
    exec(code.split("```")[0], {})  # noqa: S102 - the code under test
