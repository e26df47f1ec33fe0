"""An encoder that was trained here as a plain model of timm, for code that knows timm alone."""

from typing import Any, NamedTuple

from milan_pipeline.headless import assemble
from milan_pipeline.run_encoders import read_run_encoder


class TimmModel(NamedTuple):
    """A model of timm, in evaluation mode, and what its pixels in [0, 1] are normalised by.

    Its type is that of `timm.create_model`: a module with `forward_features`.
    """

    model: Any
    mean: list[float]
    std: list[float]


def load_timm_model(spec: str) -> TimmModel:
    """Load the encoder of a run as a model of timm without a classifier.

    Args:
        spec: a run folder, or the path of an exported `.safetensors` with its `.json` beside it.

    Raises:
        MissingDataError: the files are not there.
        DataError: they are damaged.
        ConfigError: this timm does not have the model.
        MismatchError: the weights do not fit the architecture beside them.
    """
    parts = read_run_encoder(spec)
    model, _ = assemble(parts, origin=spec)
    return TimmModel(model.eval(), parts.mean, parts.std)
