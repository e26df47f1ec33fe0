"""All codecs by name, and what is known of one before it is fitted; a new one is a row of `CODECS`.

Codecs of less than a byte a component store directions, since the loss normalises targets: a
decoded token has nearly the direction of the original, and a length near 1.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from milan_pipeline.errors import ConfigError, DataError

SIZES = ("bytes", "ratio")
"""Options of fitted codecs."""


class CodecKind(NamedTuple):
    """What a name stands for.

    Attributes:
        code_type: numpy's type of the codes; bfloat16 is stored as uint16, as numpy lacks it.
        options: what `--codec NAME:OPTION=VALUE` may give, and for codecs with options must.
        fitted: whether the codec has arrays that are fitted to a sample of the targets.
        home: module in `codecs` and class, which `build` imports.
        version: of the format of its codes and arrays.
    """

    code_type: str
    options: tuple[str, ...]
    fitted: bool
    home: str
    version: int = 1


CODECS = {
    "float16": CodecKind("<f2", (), fitted=False, home="plain:Float16"),
    "bfloat16": CodecKind("<u2", (), fitted=False, home="plain:BFloat16"),
    "int8": CodecKind("i1", (), fitted=False, home="plain:Int8"),
    "rotation": CodecKind("u1", ("bits",), fitted=False, home="rotation:Rotation"),
    "joint": CodecKind("u1", SIZES, fitted=True, home="joint:JointCodec", version=2),
}
"""All codecs by name."""
PLAIN = tuple(name for name, kind in CODECS.items() if not kind.options)
"""Codecs that keep each component, and so the length of a target."""
DIRECTIONAL = tuple(name for name in CODECS if name not in PLAIN)
"""Codecs that keep the direction of a target alone."""
REPLACED = ("vector", "transform")
"""Codecs of earlier versions that coded each token alone; `joint` is better at each size."""
LEVELS = {"high": "joint:ratio=12", "compact": "joint:ratio=24", "tiny": "joint:ratio=60"}


def codec_names() -> list[str]:
    """Return the names of all codecs and levels."""
    return [*CODECS, *LEVELS]


FLOAT16_BYTES = 2
BITS_PER_BYTE = 8
LEAST_BYTES = 0.25  # a token
ROUNDING = 1e-6
UNFITTED = "0" * 64
"""Stands for the hash of arrays that are not fitted yet."""
BITS = range(1, 5)  # a component of the rotation codec
NUMBER = re.compile(r"\d+(?:\.\d+)?")
OPTION = re.compile(rf"([a-z]+)=({NUMBER.pattern})")
LEAST_COSINE, MOST_COSINE = 0.5, 0.9999
CODEC_CHOICES = (
    f"{', '.join(PLAIN)}, high, compact or tiny. The last three are 12, 24 and 60 times smaller "
    "than float16. For other sizes: joint:ratio=X (X times smaller than float16) or joint:bytes=N "
    "(bytes for each token). cosine:X is the smallest size that keeps a mean cosine of X; plan and "
    "--dry-run count it like int8 until it is fitted. rotation:bits=N needs no fit (1 to 4 bits "
    "for each component)"
)
CHOICES = f"{', '.join([*PLAIN, *LEVELS])}, joint:bytes=N, cosine:X or rotation:bits=N"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecSpec:
    """A codec by its options.

    Attributes:
        name: a key of `CODECS`.
        token_bytes: bytes a token of a fitted codec, which codes an image as a whole: this times
            its tokens are the bytes of an image. None while only the ratio is known.
        ratio: how many times smaller than float16 a fitted codec is, if that was given.
        bits: bits a component of the rotation codec.
        cosine: the mean cosine that a fitted codec is to keep, if that was given; until it is
            fitted, its bytes are the most that it may have.
    """

    name: str
    token_bytes: float | None = None
    ratio: float | None = None
    bits: int | None = None
    cosine: float | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the codes."""
        return np.dtype(CODECS[self.name].code_type)

    @property
    def has_scale(self) -> bool:
        """Whether each token has a float16 scale beside its codes."""
        return self.name == "int8"

    @property
    def needs_fit(self) -> bool:
        """Whether the codec has arrays that are fitted to a sample of the targets."""
        return CODECS[self.name].fitted

    @property
    def is_of_images(self) -> bool:
        """Whether an image is coded as a whole: (1, C) codes, from which all tokens are decoded."""
        return self.needs_fit

    @property
    def is_directional(self) -> bool:
        """Whether the codec keeps the direction of a target alone, in less than int8's bytes."""
        return self.name in DIRECTIONAL

    @property
    def prior_dtype(self) -> np.dtype[Any]:
        """Type of the stored mask prior: float32, or uint8 codes (`interface.encode_prior`)."""
        return np.dtype(np.uint8 if self.is_directional else np.float32)

    def for_width(self, width: int) -> "CodecSpec":
        """Return the codec with its bytes a token for targets of width D.

        Raises:
            ConfigError: these are more bytes than int8 takes, or the codec does not take the width.
        """
        if self.bits is not None and width % BITS_PER_BYTE:
            raise ConfigError(
                f"--codec rotation takes targets whose width is divisible by {BITS_PER_BYTE}, and "
                f"these have {width}; give --codec int8 or high"
            )
        if not self.needs_fit:
            return self
        size = self.token_bytes or (float(width) if self.cosine else None)
        if size is None:
            assert self.ratio is not None  # noqa: S101 - parse_codec gives one of the two
            size = max(LEAST_BYTES, FLOAT16_BYTES * width / self.ratio)
        if size > width:
            raise ConfigError(
                f"--codec {self.name}:bytes={size:g} is more than int8 takes for targets of width "
                f"{width}; give at most {width}, or --codec int8"
            )
        return CodecSpec(name=self.name, token_bytes=size, cosine=self.cosine)

    def asks_for(self, other: "CodecSpec") -> bool:
        """Tell whether another codec, which may be fitted already, is what this one asks for.

        One of so many bytes asks for any of these bytes, also if they were found for a cosine.
        """
        if self.cosine is not None:
            return self.cosine == other.cosine
        return self == dataclasses.replace(other, cosine=None)

    def code_shape(self, tokens: int, width: int) -> tuple[int, int]:
        """Return (N, C) for N tokens of width D, or (1, C) where an image is coded as a whole."""
        spec = self.for_width(width)
        if spec.token_bytes is not None:
            # The bytes of an image may have been divided by its tokens, which rounds.
            return 1, max(1, int(spec.token_bytes * tokens + ROUNDING))
        if spec.bits is not None:
            return tokens, spec.bits * width // BITS_PER_BYTE
        return tokens, width

    def payload_bytes(self, tokens: int, width: int) -> int:
        """Return the bytes of one sample of N tokens of width D, scales included."""
        rows, size = self.code_shape(tokens, width)
        return rows * (size * self.dtype.itemsize + FLOAT16_BYTES * self.has_scale)

    def parameters(self, arrays: str = UNFITTED) -> dict[str, Any]:
        """Return what the identity records.

        Args:
            arrays: hash of the fitted arrays, if the codec has any.
        """
        if not self.is_directional:
            return {"name": self.name}
        version = CODECS[self.name].version
        if self.bits is not None:
            return {"name": self.name, "version": version, "bits": self.bits, "prior": "log8"}
        size = self.token_bytes
        return {
            "name": self.name,
            "version": version,
            "bytes": int(size) if size is not None and size.is_integer() else size,
            "prior": "log8",
            "arrays": arrays,
            **({} if self.cosine is None else {"cosine": self.cosine}),
        }


def parse_codec(text: str) -> CodecSpec:
    """Parse the value of `--codec`: a level, or a name with the option that it needs.

    Raises:
        ConfigError: there is no such codec, or an option is missing or wrong.
    """
    name, _, given = LEVELS.get(text, text).partition(":")
    option = OPTION.fullmatch(given)
    known = CODECS[name].options if name in CODECS else ()
    if name == "cosine":
        return _keeping(text, given)
    if name in REPLACED:
        raise ConfigError(
            f"--codec {text!r}: joint has replaced {name}, as it keeps more in as many bytes; give "
            f"joint:{given or 'bytes=N'}"
        )
    if name not in CODECS or (given and not option):
        raise ConfigError(f"--codec {text!r} is unknown; choose one of {CHOICES}")
    if not known:
        if given:
            raise ConfigError(f"--codec {text!r}: {name} takes no options; give --codec {name}")
        return CodecSpec(name=name)
    if option is None and "bits" in known:
        raise ConfigError(f"--codec {text!r} does not say how small; give {name}:bits=4")
    if option is None:
        raise ConfigError(
            f"--codec {text!r} does not say how small; give {name}:bytes=N, in bytes a token, or "
            f"{name}:ratio=X, in times smaller than float16"
        )
    if option[1] not in known:
        raise ConfigError(f"--codec {text!r} is unknown; choose one of {CHOICES}")
    return _sized(text, name, option[1], float(option[2]))


def _keeping(text: str, given: str) -> CodecSpec:
    """Return the codec that keeps a cosine, if it is in range."""
    if not NUMBER.fullmatch(given) or not LEAST_COSINE <= float(given) <= MOST_COSINE:
        raise ConfigError(
            f"--codec {text!r} takes a mean cosine from {LEAST_COSINE} to {MOST_COSINE}; give "
            "cosine:0.99"
        )
    return CodecSpec(name="joint", cosine=float(given))


def _sized(text: str, name: str, option: str, value: float) -> CodecSpec:
    """Return the codec of a size that was given, if it is in range."""
    if option == "ratio":
        if not 2 <= value <= 1000:
            raise ConfigError(f"--codec {text!r} is not within 2 to 1000; give a ratio that is")
        return CodecSpec(name=name, ratio=value)
    if option == "bits":
        if value not in BITS:
            raise ConfigError(
                f"--codec {text!r} is not within {BITS[0]} to {BITS[-1]} whole bits; give bits "
                "that are"
            )
        return CodecSpec(name=name, bits=int(value))
    if value < LEAST_BYTES:
        raise ConfigError(
            f"--codec {text!r} takes at least {LEAST_BYTES} bytes a token; give those"
        )
    return CodecSpec(name=name, token_bytes=value)


def spec_of(parameters: Mapping[str, Any]) -> CodecSpec:
    """Rebuild the spec from the codec's part of an identity; a DataError if it is not known."""
    name, version = str(parameters.get("name")), parameters.get("version")
    known = CODECS[name].version if name in CODECS else None
    if known and isinstance(version, int) and version > known:
        raise DataError(
            f"targets are stored with the codec {name} in its format version {version}, this "
            f"program reads {known}; use a newer milan-pipeline"
        )
    if known and isinstance(version, int) and version < known:
        raise DataError(
            f"targets are stored with the codec {name} in its format version {version}, which this "
            "version no longer reads; extract them again, or turn them into int8 by the version "
            "that wrote them"
        )
    if known:
        size, bits, cosine = (parameters.get(each) for each in ("bytes", "bits", "cosine"))
        spec = CodecSpec(
            name=name,
            token_bytes=float(size) if isinstance(size, int | float) else None,
            bits=bits if isinstance(bits, int) and bits in BITS else None,
            cosine=cosine if isinstance(cosine, float) else None,
        )
        if spec.parameters(str(parameters.get("arrays"))) == parameters:
            return spec
    if name in REPLACED:
        raise DataError(
            f"targets are stored with the codec {name}, which this version no longer reads; "
            "extract them again, or turn them into int8 by the version that wrote them"
        )
    raise DataError(
        f"targets are stored with the codec {dict(parameters)!r}, which this version does not "
        "know; use the version that wrote them"
    )
