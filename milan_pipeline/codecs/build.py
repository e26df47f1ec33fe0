"""Make codecs from names and from recorded parameters."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.record_arrays import Arrays, hash_of
from milan_pipeline.codecs.registry import CODECS, CodecSpec, parse_codec, spec_of
from milan_pipeline.errors import ConfigError, DataError


def make_codec(text: str) -> Codec:
    """Return the codec for a value of `--codec` that needs no fitting.

    Raises:
        ConfigError: there is no such codec, or it must be fitted.
    """
    spec = parse_codec(text)
    if spec.needs_fit:
        raise ConfigError(f"--codec {text} must be fitted to targets first; give float16 or int8")
    return _unfitted(spec)


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
        return _unfitted(spec)
    if arrays is None or hash_of(arrays) != parameters["arrays"]:
        raise DataError(
            f"the arrays of the codec {spec.name} are missing or are not those that the targets "
            "were stored with; copy the targets again, codec included, or make them again"
        )
    return _class_of(spec)(spec, arrays)


def _unfitted(spec: CodecSpec) -> Codec:
    return _class_of(spec)(spec) if spec.is_directional else _class_of(spec)()


def _class_of(spec: CodecSpec) -> Callable[..., Codec]:
    module, _, name = CODECS[spec.name].home.partition(":")
    found: Callable[..., Codec] = getattr(
        importlib.import_module(f"milan_pipeline.codecs.{module}"), name
    )
    return found
