"""Make codecs from names and from recorded parameters."""

from collections.abc import Mapping
from typing import Any

from milan_pipeline.codecs.components import (
    Arrays,
    ComponentCodec,
    TransformCodec,
    VectorCodec,
    hash_of,
)
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.plain import BFloat16, Float16, Int8
from milan_pipeline.codecs.spec import parse_codec, spec_of
from milan_pipeline.errors import ConfigError, DataError

PLAIN: dict[str, type[Float16] | type[BFloat16] | type[Int8]] = {
    "float16": Float16,
    "bfloat16": BFloat16,
    "int8": Int8,
}
FITTED: dict[str, type[ComponentCodec]] = {"transform": TransformCodec, "vector": VectorCodec}


def make_codec(text: str) -> Codec:
    """Return the codec for a value of `--codec` that needs no fitting.

    Raises:
        ConfigError: there is no such codec, or it must be fitted.
    """
    spec = parse_codec(text)
    if spec.needs_fit:
        raise ConfigError(f"--codec {text} must be fitted to targets first; give float16 or int8")
    return PLAIN[spec.name]()


def codec_of(parameters: Mapping[str, Any], arrays: Arrays | None = None) -> Codec:
    """Rebuild the codec that an identity records.

    Args:
        parameters: what the identity records.
        arrays: the arrays of a fitted codec.

    Raises:
        DataError: this version does not know the codec, or the arrays are not those of the
            identity.
    """
    spec = spec_of(parameters)
    if not spec.needs_fit:
        return PLAIN[spec.name]()
    if arrays is None or hash_of(arrays) != parameters["arrays"]:
        raise DataError(
            f"the arrays of the codec {spec.name} are missing or are not those that the targets "
            "were stored with; copy the targets again, codec included, or make them again"
        )
    return FITTED[spec.name](spec, arrays)
