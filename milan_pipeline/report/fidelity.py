"""A codec's fidelity, from stored targets alone or compared with their originals in another store.

Legend: n samples, N = 1 + L tokens (CLS first), D target width.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fidelity import cosines_of
from milan_pipeline.errors import MismatchError
from milan_pipeline.provenance.identity import TRANSCODED_FROM, require_same, without
from milan_pipeline.report.target_rows import TargetRows, decoded
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.shard_records import layout_of
from milan_pipeline.targets.store_record import finished_units, read_store_record

HALF_ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The largest relative rounding error of a component (except for subnormal ones)."""


def fidelity_facts(rows: TargetRows) -> dict[str, Any]:
    """Return what is known: a bound of the plain codecs' loss, and whether codes are reproduced.

    Encoding the decoded targets again shows whether the codec's arrays fit the codes, and what a
    second pass would lose. It does not show what the first pass lost.
    """
    spec, tokens_nND = rows.codec.spec, rows.tokens_nND
    again_nND = rows.codec.decode(*rows.codec.encode(tokens_nND))
    cosine_nN = F.cosine_similarity(tokens_nND, again_nND, dim=-1)
    known: dict[str, Any] = {
        "all_components_finite": bool(tokens_nND.isfinite().all()),
        "cosine_of_decoded_to_encoded_again": float(cosine_nN.mean()),
        "least_such_cosine": float(cosine_nN.min()),
    }
    if spec.name in HALF_ULP:
        known["least_possible_cosine_to_the_original"] = (1 - HALF_ULP[spec.name] ** 2) ** 0.5
    elif spec.name == "int8":
        known |= _int8_facts(tokens_nND)
    else:
        known["cosine_to_the_original"] = "not known: --originals measures it, or verify"
    return known


def measured_facts(
    tokens_nND: torch.Tensor, codec: str, originals_nND: torch.Tensor
) -> dict[str, Any]:
    """Compare targets with the originals that they were made of.

    Args:
        tokens_nND: the decoded targets.
        codec: name of the codec that the originals are stored with.
        originals_nND: the decoded originals, row by row.
    """
    cosine_nN, rest_nN = cosines_of(originals_nND, tokens_nND)
    return {
        "codec_of_the_originals": codec,
        "mean_cosine_to_the_originals": float(cosine_nN.mean()),
        "first_percentile": float(torch.quantile(cosine_nN, 0.01)),
        "mean_of_class_tokens": float(cosine_nN[:, 0].mean()),
        "mean_without_the_largest_channel": float(rest_nN.mean()),
        "its_first_percentile": float(torch.quantile(rest_nN, 0.01)),
    }


def _int8_facts(tokens_nND: torch.Tensor) -> dict[str, float]:
    """Compute bounds: the rounding error is at most half a step, and is expected to be uniform."""
    scale_nN = make_codec("int8").encode(tokens_nND).scale_nN
    assert scale_nN is not None  # noqa: S101 - int8 has one
    width, step_nN = tokens_nND.shape[-1], scale_nN.float()
    norm_nN = torch.linalg.vector_norm(tokens_nND, dim=-1).clamp_min(1e-12)
    most_nN = (step_nN / 2 * width**0.5 / norm_nN).clamp_max(1)
    likely_nN = step_nN * (width / 12) ** 0.5 / norm_nN
    return {
        "least_possible_cosine_to_the_original": float((1 - most_nN.square()).sqrt().min()),
        "expected_cosine_to_the_original": float((1 + likely_nN.square()).rsqrt().mean()),
    }


OF_THE_CODEC = ("codec", TRANSCODED_FROM)
"""Parts of the identity that differ between targets and their originals."""
OF_THE_VIEW = ("box", "flip", "digest")
"""Fields of a record that identify the pixels of the view."""
REMEDY = "give the store that these targets were made of"


def read_originals(url: str, rows: TargetRows) -> tuple[str, torch.Tensor]:
    """Read the same views' targets from another store.

    Args:
        url: a target store of the same teacher and views; the units of these rows must be finished.
        rows: targets of another codec.

    Returns:
        The name of the store's codec, and its targets (n, N, D), float32, row by row.

    Raises:
        MismatchError: the store is of another teacher or of other views, or lacks a row.
        DataError, MissingDataError: the store is damaged, or there is none.
        StorageError: the store cannot be read.
    """
    identity = read_identity(url)
    there, here = (without(one, OF_THE_CODEC) for one in (identity, rows.identity))
    require_same(there, here, what=f"--originals {url}", remedy=REMEDY)
    record = read_store_record(url, identity)
    finished = finished_units(url, identity, record, views=None, allow_unfinished=True)
    unit_of = {(unit.shard.stem, unit.view): (unit, mark) for unit, mark in finished}
    layout = layout_of(identity)
    records = np.zeros(len(rows), layout.dtype)
    for (source, view), numbers in _by_unit(rows).items():
        if (source, view) not in unit_of:
            raise MismatchError(
                f"--originals {url} has no finished view {view} of {source}; {REMEDY}"
            )
        stored = open_unit(url, *unit_of[source, view])
        row_of = {key: row for row, key in enumerate(stored.keys())}
        for number in numbers:
            row, ours = row_of.get(rows.key[number]), rows.records[number]
            found = None if row is None else layout.records_of(stored, [row])[0]
            if found is None or any(not np.array_equal(found[f], ours[f]) for f in OF_THE_VIEW):
                raise MismatchError(
                    f"--originals {url} has no target of the pixels that {rows.key[number]} of "
                    f"{source} is of; {REMEDY}"
                )
            records[number] = found
    codec = read_store_codec(url, identity)
    return codec.spec.name, decoded(codec, records)


def _by_unit(rows: TargetRows) -> dict[tuple[str, int], list[int]]:
    """Group the numbers of the rows by image shard and view."""
    found = defaultdict(list)
    for number, place in enumerate(zip(rows.source, rows.view, strict=True)):
        found[place].append(number)
    return found
