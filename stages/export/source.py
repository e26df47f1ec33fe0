"""What `export` exports: the model of a run, with what is known of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.core.schema import parsed
from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError
from milan_pipeline.provenance.identity import content_hash, recorded_targets
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, require_ended
from milan_pipeline.stages.export.command import Export
from milan_pipeline.storage.checksums import read_checked
from milan_pipeline.training.evaluations import BEST
from milan_pipeline.weights.export import ClassHead, encoder_with
from milan_pipeline.weights.run_weights import (
    RunWeights,
    encoder_description,
    encoder_weights,
    recorded_encoder,
    student_weights,
    weights_sha256,
)

Kind = Literal["encoder", "student", "classifier", "segmenter"]
LABELLED: dict[str, Kind] = {"finetune": "classifier", "segment": "segmenter"}
"""What each stage trains that has no encoder alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What is exported.

    Attributes:
        kind: what it is.
        model: on the CPU, in evaluation mode, with its weights; of a student, its encoder without.
        state: the weights.
        sha256: of the file that they are from.
        description: what the `.json` beside them holds; of a student, nothing.
        head: of a classifier.
        record: of the run.
    """

    kind: Kind
    model: Any
    state: Mapping[str, Tensor]
    sha256: str
    description: dict[str, Any]
    head: ClassHead | None = None
    record: dict[str, Any]

    @property
    def image_size(self) -> int:
        """Height and width of the images that it takes, in pixels."""
        size = self.description["timm"]["img_size"] if self.description else None
        size = self.model.patch_embed.img_size if size is None else size
        return int(size if isinstance(size, int) else size[0])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs; empty of an encoder, or if the data did not name them."""
        return tuple(self.description.get("classes", ()))

    @property
    def weight_bytes(self) -> int:
        """What the weights take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state.values())

    @property
    def inputs(self) -> dict[str, Any]:
        """What the export depends on."""
        found = {"weights_sha256": self.sha256}
        if self.description:
            found["encoder_sha256"] = content_hash(self.description)
        return found


def read_source(config: Export) -> Source:
    """Read what the form needs of the run.

    Raises:
        MissingDataError: there is no run, or it has no such weights.
        MismatchError: it is not done, or it has not what the form needs.
        ConfigError: the form does not have such models.
        DataError: the weights are damaged.
    """
    require_ended(
        config.folder,
        allow_unfinished=config.allow_unfinished,
        remedy="finish it or --allow-unfinished",
        wrote="pretrain, import-checkpoint, finetune or segment",
    )
    record = read_record(storage.join(config.run, CONFIG_NAME)) or {"content": {}}
    stage = record.get("stage", "pretrain")
    if stage in LABELLED:
        return _labelled(config, LABELLED[stage], record)
    if config.form == "official":
        return _student(config, record)
    weights = encoder_weights(config.folder, ema=config.ema)
    description = encoder_description(config.folder)
    return Source(
        kind="encoder",
        model=encoder_with(weights.state, description).eval(),
        state=weights.state,
        sha256=weights.sha256,
        description=description,
        record=record,
    )


def _student(config: Export, record: dict[str, Any]) -> Source:
    found: RunWeights | None = student_weights(config.folder)
    decoder = record["content"].get("decoder", "prompting")
    if found is None:
        raise MissingDataError(
            f"{config.run} has no checkpoint with a decoder; export its encoder with --form timm"
        )
    if decoder != "prompting":
        raise MismatchError(
            f"{config.run} has the {decoder!r} decoder, and the official form needs the prompting "
            "decoder; export its encoder with --form timm"
        )
    teachers = recorded_targets(record.get("inputs", {}))
    if len(teachers) > 1:
        raise MismatchError(
            f"{config.run} has a head for each of its teachers ({', '.join(teachers)}), and the "
            "official form has one head; export its encoder with --form timm"
        )
    model = recorded_encoder(config.folder, found.state)
    return Source(
        kind="student",
        model=model,
        state=found.state,
        sha256=found.sha256,
        description={},
        record=record,
    )


def _labelled(config: Export, kind: Kind, record: dict[str, Any]) -> Source:
    """Read the best weights of a run of `finetune` or `segment`."""
    stage, url = record["stage"], str(config.folder / f"{BEST}.safetensors")
    if config.ema:
        raise ConfigError(
            f"--ema does not work with {config.run}, a run of {stage}: with --ema-decay its best "
            "weights are an average already; leave out --ema"
        )
    _require_form(config, kind)
    if not storage.exists(url):
        raise MissingDataError(
            f"{config.run} has no {BEST}.safetensors yet; run {stage} until it has scored its model"
        )
    head, model = None, None
    description = parsed(read_checked(f"{url.removesuffix('.safetensors')}.json"), dict[str, Any])
    if kind == "classifier":
        from milan_pipeline.evaluate.classification.model import read_classifier

        model, found = read_classifier(url)
        outputs = int(found.arguments["num_classes"])
        head = ClassHead(outputs=outputs, names=found.classes, crop_pct=found.crop_pct)
    else:
        from milan_pipeline.evaluate.segmentation.files import read_segmenter

        model, _ = read_segmenter(url)
    return Source(
        kind=kind,
        model=model.eval(),
        state=model.state_dict(),
        sha256=weights_sha256(url),
        description=description,
        head=head,
        record=record,
    )


def _require_form(config: Export, kind: Kind) -> None:
    """Refuse a form that has no such model.

    Raises:
        ConfigError: it has none.
    """
    if config.form == "official":
        raise ConfigError(
            f"--form official is for what pretrain trained, and {config.run} has a {kind}; take "
            "--form safetensors, onnx or, for a classifier, timm"
        )
    if kind == "segmenter" and config.form in ("timm", "huggingface"):
        raise ConfigError(
            f"--form {config.form} has no model that computes what the segmenter of {config.run} "
            "does; take --form onnx or safetensors"
        )
