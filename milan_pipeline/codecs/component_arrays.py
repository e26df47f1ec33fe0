"""The arrays of a fitted codec, which transform and vector codecs share: shapes, types, hash.

Bytes are counted by them alone, so nothing here loads torch. `components` says what they are.

Legend: D target width, K components.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.errors import DataError

Arrays = Mapping[str, NDArray[Any]]
LEVELS = 256
BYTE = 8
DTYPES = {"centre": "<f4", "basis": "<f4", "level": "<f4", "offset": "<i4", "bits": "u1"}


def hash_of(arrays: Arrays) -> str:
    """Hash arrays by name, type, shape and bytes, independent of where they are stored."""
    digest = hashlib.sha256()
    for name, dtype in DTYPES.items():
        with np.errstate(invalid="ignore"):  # an array of another type is another codec's
            values = np.ascontiguousarray(arrays[name], dtype=dtype)
        digest.update(f"{name} {dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def array_shapes(spec: CodecSpec, width: int) -> dict[str, tuple[int, ...]]:
    """Return the arrays' shapes for targets of width D, with the most components possible."""
    components = most_components(spec, width)
    return {
        "centre": (LEVELS if spec.name == "vector" else 1, width),
        "basis": (components, width),
        "level": (components, LEVELS),
        "offset": (components,),
        "bits": (components,),
    }


def most_components(spec: CodecSpec, width: int) -> int:
    """Return the most components of a codec: each has at least one bit, and there are at most D."""
    return min(width, 8 * spec.code_width(width))


def checked_arrays(spec: CodecSpec, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays in their types.

    Raises:
        DataError: one is missing, or they do not fit together.
    """
    missing = set(DTYPES) - set(arrays)
    if missing:
        raise DataError(f"the codec {spec.name} lacks its array {min(missing)}; make it again")
    held = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in DTYPES.items()}
    ends_K = held["offset"].astype(np.int64) + held["bits"]
    components, _ = held["basis"].shape if held["basis"].ndim == 2 else (-1, 0)
    sound = (
        components == len(held["level"]) == len(held["offset"]) == len(held["bits"])
        and held["centre"].shape[1:] == held["basis"].shape[1:]
        and held["level"].shape[1:] == (LEVELS,)
        and bool((held["offset"] >= 0).all() and (ends_K <= 8 * (spec.token_bytes or 0)).all())
        and bool((held["bits"] >= 1).all() and (held["bits"] <= 8).all())
    )
    if not sound:
        raise DataError(f"the arrays of the codec {spec.name} do not fit together; make it again")
    return held
