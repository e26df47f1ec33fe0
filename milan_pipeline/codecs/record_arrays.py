"""The arrays of a fitted codec: shapes, types, hash; `joint` says what they are.

Bytes are counted by them alone, so nothing here loads torch.

Legend: N tokens (CLS first), L patches, D target width, B bytes an image. Image layer: C components
of CLS, K of patches, M patterns of positions, J coded coefficients, V columns of levels. Token
layer: S kinds of patches, E centres of a kind, Q components of a kind, P predicting components of
CLS, T tiers.
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
MOST_CLASSES = 256
"""A byte selects the class of a patch: its kind and its centre."""
MOST_TIERS = 4
MOST_PREDICTING = 96
MOST_COLUMNS = 820
"""Of the levels of the image layer."""
IMAGE_DTYPES = {
    "mean": "<f2",
    "cls_basis": "<f2",
    "basis": "<f2",
    "position": "<f2",
    "row": "<i4",
    "byte": "<i4",
    "column": "<i4",
    "scale": "<f4",
    "level": "<f4",
}
TOKEN_DTYPES = {
    "centre": "<f2",
    "kind_basis": "<f2",
    "predict": "<f2",
    "spread": "<f4",
    "tier": "<i4",
    "tier_bytes": "<i4",
    "tier_place": "<i4",
    "tier_level": "<f4",
}
DTYPES = IMAGE_DTYPES | TOKEN_DTYPES
DIMENSIONS = {
    "mean": 2,
    "cls_basis": 2,
    "basis": 2,
    "position": 2,
    "row": 1,
    "byte": 1,
    "column": 1,
    "scale": 1,
    "level": 2,
    "centre": 3,
    "kind_basis": 3,
    "predict": 3,
    "spread": 2,
    "tier": 2,
    "tier_bytes": 1,
    "tier_place": 2,
    "tier_level": 3,
}


def hash_of(arrays: Arrays) -> str:
    """Hash arrays by name, type, shape and bytes, independent of where they are stored."""
    digest = hashlib.sha256()
    for name, dtype in DTYPES.items():
        with np.errstate(invalid="ignore"):  # an array of another type is another codec's
            values = np.ascontiguousarray(arrays[name], dtype=dtype)
        digest.update(f"{name} {dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def array_shapes(spec: CodecSpec, tokens: int, width: int) -> dict[str, tuple[int, ...]]:
    """Return the arrays' shapes for N tokens of width D, at about their largest.

    One of both layers is small, so the larger one of the two is counted.
    """
    size = spec.code_shape(tokens, width)[1]
    patches = max(1, tokens - 1)
    coded = min(tokens * width, BYTE * size)
    one_token = min(width, BYTE * -(-size // tokens))
    return {
        "mean": (tokens, width),
        "cls_basis": (width, width),
        "basis": (width, width),
        "position": (patches, patches),
        "row": (coded,),
        "byte": (coded,),
        "column": (coded,),
        "scale": (coded,),
        "level": (min(coded, MOST_COLUMNS), LEVELS),
        "centre": (1, MOST_CLASSES, width),
        "kind_basis": (most_kinds(width), one_token, width),
        "predict": (most_kinds(width), min(width, MOST_PREDICTING), width),
        "spread": (most_kinds(width), one_token),
        "tier": (1, MOST_CLASSES),
        "tier_bytes": (MOST_TIERS,),
        "tier_place": (MOST_TIERS, one_token),
        "tier_level": (MOST_TIERS, one_token, LEVELS),
    }


def most_kinds(width: int) -> int:
    """Return the most kinds of patches: fewer for wide targets, whose components are many."""
    return 64 if width <= 192 else 32 if width <= 384 else 16


def checked_arrays(spec: CodecSpec, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays in their types.

    Raises:
        DataError: one is missing, or they do not fit together.
    """
    missing = set(DTYPES) - set(arrays)
    if missing:
        raise DataError(f"the codec {spec.name} lacks its array {min(missing)}; make it again")
    held = typed({name: arrays[name] for name in DTYPES})
    is_shaped = all(held[name].ndim == number for name, number in DIMENSIONS.items())
    if not (is_shaped and _is_image_layer(held) and _is_token_layer(held)):
        raise DataError(f"the arrays of the codec {spec.name} do not fit together; make it again")
    return held


def typed(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return arrays in the types that they are stored in."""
    return {name: np.ascontiguousarray(values, DTYPES[name]) for name, values in arrays.items()}


def image_bytes(spec: CodecSpec, arrays: Arrays) -> int:
    """Return B, the bytes of an image's record."""
    return spec.code_shape(*arrays["mean"].shape)[1]


def _is_image_layer(held: Arrays) -> bool:
    tokens, width = held["mean"].shape
    sizes = {held[name].shape for name in ("row", "byte", "column", "scale")}
    rows = len(held["cls_basis"]) + len(held["position"]) * len(held["basis"])
    return (
        len(sizes) == 1
        and len(held["row"]) > 0
        and held["cls_basis"].shape[1] == held["basis"].shape[1] == width
        and held["position"].shape[1] == max(1, tokens - 1)
        and held["level"].shape[1] == LEVELS
        and _within(held["row"], rows)
        and _within(held["column"], len(held["level"]))
        and bool((held["byte"] >= 0).all())
    )


def _is_token_layer(held: Arrays) -> bool:
    (kinds, centres, width), components = held["centre"].shape, held["kind_basis"].shape[1]
    tiers = len(held["tier_bytes"])
    return (
        held["kind_basis"].shape == (kinds, components, width)
        and width == held["mean"].shape[1]
        and held["predict"].shape[::2] == (kinds, width)
        and held["predict"].shape[1] <= len(held["cls_basis"])
        and held["spread"].shape == (kinds, components)
        and held["tier"].shape == (kinds, centres)
        and held["tier_place"].shape == (tiers, components)
        and held["tier_level"].shape == (tiers, components, LEVELS)
        and 0 < kinds * centres <= MOST_CLASSES
        and _within(held["tier"], tiers)
        and bool((held["tier_bytes"] >= 0).all() and (held["tier_place"] >= 0).all())
    )


def _within(numbers: NDArray[Any], end: int) -> bool:
    return bool((numbers >= 0).all() and (numbers < end).all())
