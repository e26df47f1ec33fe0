"""Write the files of a form, their hashes and the model card, unless that is done."""

from typing import Any

from torch import Tensor, nn

from milan_pipeline import storage
from milan_pipeline.core.console import bytes_text, say, say_nothing_to_do
from milan_pipeline.core.progress import waiting
from milan_pipeline.errors import MismatchError
from milan_pipeline.evaluate.evaluation_view import resized_side
from milan_pipeline.evaluate.segmentation.views import INTERPOLATION
from milan_pipeline.models.weight_files import json_bytes
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.run_state import STATE_NAME
from milan_pipeline.stages.export.card import card_of
from milan_pipeline.stages.export.command import Export
from milan_pipeline.stages.export.source import Source, read_source
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.storage.checksums import put_with_sums
from milan_pipeline.weights.export import BICUBIC, official_files, own_files, timm_files
from milan_pipeline.weights.huggingface import huggingface_files, huggingface_model
from milan_pipeline.weights.model_card import CARD
from milan_pipeline.weights.official import require_official
from milan_pipeline.weights.onnx_file import INPUT, onnx_model, require_onnx

RECORD_NAME = "export.json"
FILES = {
    "timm": ("model.safetensors", "config.json"),
    "official": ("checkpoint.pth",),
    "huggingface": ("model.safetensors", "config.json", "preprocessor_config.json"),
    "onnx": ("model.onnx", "config.json"),
    "safetensors": ("model.safetensors", "model.json"),
}
"""What each form writes beside the card."""


def write(config: Export) -> None:
    """Write the files of the form and their hashes, unless that is done."""
    source = read_source(config)
    record = _record(config, source)
    if _is_done(config, record):
        return
    _require_no_others(config, record)
    files, counts = _files(config, source)
    record.begin()
    put_with_sums(config.out, files)
    record.finish({"tensors": len(source.state), "bytes": sum(map(len, files.values())), **counts})
    text = "".join(f", {name.replace('_', ' ')}: {value:.1e}" for name, value in counts.items())
    say(f"{config.out}: {', '.join(files)}{text}", out=config.out, files=list(files), **counts)


def describe(config: Export) -> None:
    """Say which files would be written and what they would take."""
    source = read_source(config)
    record = _record(config, source)
    if _is_done(config, record):
        return
    _require_no_others(config, record)
    _require_expressible(config, source)
    files = [*FILES[config.form], CARD]
    say(f"files to write: {', '.join(files)}", files=files)
    size = source.weight_bytes
    say_bytes_to_write(config.out, f"about {bytes_text(size)} of weights", size)


def _require_expressible(config: Export, source: Source) -> None:
    """Refuse what writing would refuse, as far as that is known before a file is made.

    Raises:
        ConfigError: the form does not have such a model.
    """
    if config.form == "official":
        require_official(source.model)
    elif config.form == "huggingface":
        huggingface_model(source.model, source.description, source.head)
    elif config.form == "onnx":
        require_onnx(source.model)


def _files(config: Export, source: Source) -> tuple[dict[str, bytes], dict[str, float]]:
    """Return the bytes of each file, and what was measured on the way."""
    with waiting(f"export: {config.form}"):
        return _made_files(config, source)


def _made_files(config: Export, source: Source) -> tuple[dict[str, bytes], dict[str, float]]:
    form, model, described, head = config.form, source.model, source.description, source.head
    counts: dict[str, float] = {}
    if form == "official":
        files = official_files(source.state, model)
    elif form == "safetensors":
        files = own_files(source.state, described)
    elif form == "onnx":
        files, difference = _onnx_files(source)
        counts = {"largest_difference": difference}
    elif form == "timm":
        files = timm_files(model, described, head)
    else:
        files = huggingface_files(model, described, head)
    return files | {CARD: card_of(config, source)}, counts


def _onnx_files(source: Source) -> tuple[dict[str, bytes], float]:
    described, head = source.description, source.head
    size, output = source.image_size, OUTPUTS[source.kind]
    about = {
        "classes": list(source.classes),
        "image_size": size,
        "resized_shorter_side": resized_side(size, head.crop_pct if head else 1.0),
        "interpolation": INTERPOLATION if source.kind == "segmenter" else BICUBIC,
        "mean": list(described["mean"]),
        "std": list(described["std"]),
    }
    data, difference = onnx_model(
        _Output(source.model, source.kind).eval(), size, output=output, properties=about
    )
    return {
        "model.onnx": data,
        "config.json": json_bytes({"input": INPUT, "output": output, **about}),
    }, difference


OUTPUTS = {"encoder": "tokens", "classifier": "logits", "segmenter": "logits"}


class _Output(nn.Module):
    """A model whose forward pass is the one tensor that an ONNX file has for it."""

    def __init__(self, model: Any, kind: str) -> None:
        super().__init__()
        self.model, self._kind = model, kind

    def forward(self, pixels_BCSS: Tensor) -> Tensor:
        """Return the tokens of an encoder, or logits."""
        if self._kind == "encoder":
            tokens_BNE: Tensor = self.model.forward_features(pixels_BCSS)
            return tokens_BNE
        found: Any = self.model(pixels_BCSS)
        logits: Tensor = found.main_BYHW if self._kind == "segmenter" else found
        return logits


def _record(config: Export, source: Source) -> StageRecord:
    url = storage.join(config.out, RECORD_NAME)
    return StageRecord(url=url, stage="export", config=config, inputs=source.inputs)


def _is_done(config: Export, record: StageRecord) -> bool:
    done = not config.overwrite and record.previous_state() == "done"
    done = done and {*FILES[config.form], CARD} <= set(storage.list_names(config.out))
    if done:
        say_nothing_to_do(config.out, f"the {config.form} form is there")
    return done


def _require_no_others(config: Export, record: StageRecord) -> None:
    """Refuse a folder of something else, and files that export did not write."""
    files = (*FILES[config.form], CARD)
    names = [*(() if storage.exists(record.url) else files), STATE_NAME]
    other = [name for name in names if storage.exists(storage.join(config.out, name))]
    if other:
        raise MismatchError(
            f"--out {config.out} holds a {other[0]} that export did not write; give another folder"
        )
    if not storage.exists(record.url):
        require_own_folder(config.out, "export")
