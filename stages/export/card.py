"""What the model card of an export says of teacher, data, training and figures: from records."""

import contextlib
from collections.abc import Mapping
from typing import Any

from milan_pipeline import storage
from milan_pipeline.encoders.names import is_named
from milan_pipeline.errors import MilanError
from milan_pipeline.evaluate.accuracies import accuracy_interval, accuracy_text
from milan_pipeline.evaluate.scores_file import SCORES, Result, read_scores
from milan_pipeline.provenance.record import read_record
from milan_pipeline.stages.export.command import Export
from milan_pipeline.stages.export.source import Source
from milan_pipeline.training.state import CONFIG_NAME
from milan_pipeline.weights.model_card import Card, card_bytes

SHARES_OF_IMAGES = ("top1", "top5")
"""Figures with an interval; a mIoU is no share of equal, independent answers."""


def card_of(config: Export, source: Source, difference: float | None) -> bytes:
    """Write the card.

    Args:
        config: the options.
        source: what is exported.
        difference: largest between the outputs of an ONNX file and torch's.
    """
    origin = _origin(source)
    if difference is not None:
        origin["ONNX file"] = (
            f"checked by onnxruntime when it was made; largest difference from PyTorch's outputs: "
            f"{difference:.1e}"
        )
    timm = source.description.get("timm", {})
    name = timm.get("model_name", source.record["content"].get("student", "ViT"))
    return card_bytes(
        Card(
            kind=source.kind,
            form=config.form,
            model=name,
            parameters=sum(tensor.numel() for tensor in source.state.values()),
            image_size=source.image_size,
            classes=source.head.names if source.head else (),
            origin=origin,
            figures=_figures(config.run),
        )
    )


def _origin(source: Source) -> dict[str, str]:
    """Tell teacher, data, training and identity, as far as records have them."""
    record = source.record
    found: dict[str, str] = {}
    if source.kind in ("classifier", "segmenter"):
        inputs, extent = record["inputs"], record["extent"]
        found["Images to train on"] = str(inputs["train"])
        found["Images to score on"] = str(extent["val"])
        found |= _training(record)
        pretraining = _pretraining_of(record)
        if pretraining is None:
            found["Encoder"] = _encoder_text(record)
            record = {}
        else:
            record = pretraining
    if record:
        found |= {f"{name} (pretraining)": text for name, text in _training(record).items()}
        found |= _teacher(record["inputs"], record["content"])
    return found | {"SHA-256 of the weights in the run": f"`{source.sha256}`"}


def _encoder_text(record: Mapping[str, Any]) -> str:
    """Name the encoder that a run began with; a path of this machine tells others nothing."""
    spec = record["config"]["encoder"]
    name = f"`{spec}`" if is_named(spec) else f"files of SHA-256 `{record['inputs']['encoder']}`"
    return f"{name}, with random weights" if record["config"].get("random_init") else name


def _training(record: Mapping[str, Any]) -> dict[str, str]:
    versions, steps = record.get("versions", {}), record.get("counts", {}).get("steps")
    names = ("milan-pipeline", "torch", "timm")
    made_by = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    found = f"`{record['stage']}`, {steps} steps" if steps else f"`{record['stage']}`"
    return {"Training": f"{found}; {made_by}"} if "stage" in record else {}


def _teacher(inputs: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, str]:
    """Tell the teacher and the identity of its targets, or why there are none."""
    identity = inputs.get("identity")
    if identity is None:
        imported = inputs.get("checkpoint_sha256")
        if imported is not None:
            return {"Teacher": f"unknown: imported from a checkpoint of SHA-256 `{imported}`"}
        return {"Teacher": "none: pixels were predicted"} if content.get("target") else {}
    teacher = identity["teacher"]
    tag = f", {teacher['pretrained']}" if teacher.get("pretrained") else ""
    weights = teacher.get("weights_sha256")
    return {
        "Teacher": f"{teacher['name']}{tag}" + (f"; its weights: `{weights}`" if weights else ""),
        "Licence of the teacher": str(teacher.get("license", "not recorded; look it up")),
        "Identity of the targets": f"`{inputs['identity_hash']}`",
        "Pairs of images and targets": f"`{inputs['pairs']}`",
    }


def _pretraining_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find the record of the pretraining that a run began with, if that is what it still is."""
    spec = record["config"]["encoder"]
    if is_named(spec) or record["config"].get("random_init"):
        return None
    from milan_pipeline.encoders.load import fingerprint

    folder = storage.folder_of(spec) if spec.endswith(".safetensors") else spec
    with contextlib.suppress(MilanError):
        if fingerprint(spec) == record["inputs"]["encoder"]:
            found = read_record(storage.join(folder, CONFIG_NAME))
            return found if found and found["stage"] in ("pretrain", "import-checkpoint") else None
    return None


def _figures(run: str) -> tuple[tuple[str, str, str, str], ...]:
    """Return rows of what the exported weights scored; none where there are no scores."""
    if not storage.exists(storage.join(run, SCORES)):
        return ()
    result = read_scores(run)
    best = {
        name.removeprefix("best-"): value
        for name, value in result.metrics.items()
        if name.startswith("best-")
    }
    return tuple(_row(name, value, result) for name, value in best.items())


def _row(name: str, value: float, result: Result) -> tuple[str, str, str, str]:
    images = int(result.extras["val"]) - int(result.extras["unreadable"]["val"])
    interval = ""
    if name in SHARES_OF_IMAGES:
        low, high = accuracy_interval(value, images)
        interval = f"{accuracy_text(low)} to {accuracy_text(high)}"
    return name, accuracy_text(value), interval, str(images)
