"""The arrays of a fitted codec: shapes, types, hash; `joint` says what they are.

Bytes are counted by them alone, so nothing here loads torch.

Legend: D target width, S kinds of patches, E centres of a kind, K components, P predicting
components of CLS; the last of S + 1 kinds is that of CLS.
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
MOST_KINDS = 16
MOST_CENTRES = 16
"""Both numbers together select one of 256: a byte."""
MOST_PREDICTING = 96
DTYPES = {
    "centre": "<f2",
    "basis": "<f2",
    "predict": "<f2",
    "spread": "<f4",
    "level": "<f4",
    "place": "<i4",
}
DIMENSIONS = {"centre": 3, "basis": 3, "predict": 3, "spread": 2, "level": 2, "place": 1}


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
    """Return the arrays' shapes for targets of width D, at their largest."""
    components = most_components(spec, width)
    return {
        "centre": (MOST_KINDS + 1, MOST_CENTRES, width),
        "basis": (MOST_KINDS + 1, components, width),
        "predict": (MOST_KINDS, min(components, MOST_PREDICTING), width),
        "spread": (MOST_KINDS + 1, components),
        "level": (components, LEVELS),
        "place": (components,),
    }


def most_components(spec: CodecSpec, width: int) -> int:
    """Return the most components of a codec: each has at least one bit, and there are at most D."""
    return min(width, BYTE * (spec.code_width(width) - 1))


def checked_arrays(spec: CodecSpec, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays in their types.

    Raises:
        DataError: one is missing, or they do not fit together.
    """
    missing = set(DTYPES) - set(arrays)
    if missing:
        raise DataError(f"the codec {spec.name} lacks its array {min(missing)}; make it again")
    held = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in DTYPES.items()}
    if not (_are_shaped(held) and _are_placed(held, spec.token_bytes or 0)):
        raise DataError(f"the arrays of the codec {spec.name} do not fit together; make it again")
    return held


def _are_shaped(held: Arrays) -> bool:
    centre, basis, predict = held["centre"], held["basis"], held["predict"]
    if not centre.ndim == basis.ndim == predict.ndim == 3:
        return False
    (kinds, centres, width), components = centre.shape, basis.shape[1]
    return (
        basis.shape == (kinds, components, width)
        and predict.shape[::2] == (kinds - 1, width)
        and predict.shape[1] <= components
        and held["spread"].shape == (kinds, components)
        and held["level"].shape == (components, LEVELS)
        and held["place"].shape == (components,)
        and kinds > 1
        and 0 < centres * (kinds - 1) <= LEVELS
    )


def _are_placed(held: Arrays, size: int) -> bool:
    """Tell whether the components' bytes are within a token's, after its class."""
    return bool((held["place"] > 0).all() and (held["place"] < size).all())
