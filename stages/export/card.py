"""What the model card of an export says of teacher, data, training and figures: from records."""

import contextlib
from collections.abc import Mapping
from typing import Any

from milan_pipeline import storage
from milan_pipeline.encoders.names import is_named
from milan_pipeline.errors import MilanError
from milan_pipeline.evaluate.accuracies import accuracy_text, interval_text
from milan_pipeline.provenance.identity import recorded_targets
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME
from milan_pipeline.stages.export.command import Export
from milan_pipeline.stages.export.source import LABELLED, Source
from milan_pipeline.training.evaluations import Evaluations
from milan_pipeline.weights.model_card import Card, card_bytes
from milan_pipeline.weights.onnx_file import TOLERANCE

KEYS = {"finetune": "top1", "segment": "miou"}
"""The score by which each stage chooses its best weights."""
FIGURES = ("top1", "top5", "miou", "macc", "aacc")


def card_of(config: Export, source: Source) -> bytes:
    """Write the card.

    Args:
        config: the options.
        source: what is exported.
    """
    origin = _averaged(config, source) | _origin(source)
    if config.form == "onnx":  # the difference itself is not the same on every machine
        origin["ONNX file"] = (
            f"checked by onnxruntime when it was made; its outputs are within {TOLERANCE:g} of "
            "PyTorch's, as a share of the largest output (at least of 1)"
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
            classes=source.classes,
            origin=origin,
            figures=_figures(config, source.record),
        )
    )


def _averaged(config: Export, source: Source) -> dict[str, str]:
    """Say so where the weights are a moving average, which a run may keep beside its weights."""
    decay = source.record["content"].get("ema_decay")
    if decay is None or not (config.ema or source.kind in LABELLED.values()):
        return {}
    return {"Weights": f"a moving average over the steps of training, with a decay of {decay:g}"}


def _origin(source: Source) -> dict[str, str]:
    """Tell teacher, data, training and identity, as far as records have them."""
    record = source.record
    found: dict[str, str] = {}
    if source.kind in LABELLED.values():
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
        found |= teachers_of(record.get("inputs", {}), record["content"])
    return found | {"SHA-256 of the weights in the run": f"`{source.sha256}`"}


def _encoder_text(record: Mapping[str, Any]) -> str:
    """Name the encoder that a run began with; a path of this machine tells others nothing."""
    spec = record["config"]["encoder"]
    name = f"`{spec}`" if is_named(spec) else f"files of SHA-256 `{record['inputs']['encoder']}`"
    return f"{name}, with random weights" if record["config"].get("random_init") else name


def _training(record: Mapping[str, Any]) -> dict[str, str]:
    if "stage" not in record:
        return {}
    versions, steps = record.get("versions", {}), record.get("counts", {}).get("steps")
    names = ("milan-pipeline", "torch", "timm")
    made_by = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    found = f"`{record['stage']}`, {steps} steps" if steps else f"`{record['stage']}`"
    return {"Training": f"{found}; {made_by}"}


def teachers_of(inputs: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, str]:
    """Tell each teacher and the identity of its targets, or why there are none."""
    targets = recorded_targets(inputs)
    if not targets:
        imported = inputs.get("checkpoint_sha256")
        if imported is not None:
            return {"Teacher": f"unknown: imported from a checkpoint of SHA-256 `{imported}`"}
        return {"Teacher": "none: pixels were predicted"} if content.get("target") else {}
    found: dict[str, str] = {}
    for name, part in targets.items():
        of = f" ({name})" if name else ""
        found |= {f"{what}{of}": text for what, text in _one_teacher(part).items()}
    return found | {"Pairs of images and targets": f"`{inputs['pairs']}`"}


def _one_teacher(part: Mapping[str, Any]) -> dict[str, str]:
    teacher = part["identity"]["teacher"]
    tag = f", {teacher['pretrained']}" if teacher.get("pretrained") else ""
    weights = teacher.get("weights_sha256")
    return {
        "Teacher": f"{teacher['name']}{tag}" + (f"; its weights: `{weights}`" if weights else ""),
        "Licence of the teacher": str(teacher.get("license", "not recorded; look it up")),
        "Identity of the targets": f"`{part['identity_hash']}`",
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
            if (found or {}).get("stage") in ("pretrain", "import-checkpoint"):
                return found
    return None


def _figures(config: Export, record: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Return rows of what the exported weights scored; none where they were not."""
    key = KEYS.get(record.get("stage", ""))
    if key is None:
        return ()
    best = Evaluations(config.folder, key=key, val=record["extent"]["val"]).best() or {}
    intervals = best.get("intervals", {})
    return tuple(
        (name, accuracy_text(best[name]), interval_text(intervals.get(name)))
        for name in FIGURES
        if name in best
    )
