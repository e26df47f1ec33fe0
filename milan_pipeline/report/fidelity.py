"""What can be said of a codec's fidelity: from stored targets alone, or beside their originals.

Legend: n samples, N tokens, D target width.
"""

from typing import Any

import torch
from torch.nn import functional as F

from milan_pipeline.codecs import make_codec
from milan_pipeline.report.target_rows import TargetRows

HALF_ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The most that rounding changes a component by, relative to it (subnormal ones apart)."""


def fidelity_facts(rows: TargetRows) -> dict[str, Any]:
    """Say what is known: a bound of the plain codecs' loss, and whether codes are reproduced.

    Encoding what was decoded once more tells that the codec's arrays fit the codes, and how far a
    second pass would drift; it does not tell what the first pass lost.
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
    """Say how near targets are to those that they were made of.

    Args:
        tokens_nND: the targets, decoded.
        codec: that the originals were stored by, and are decoded from.
        originals_nND: theirs, row by row.
    """
    cosine_nN = F.cosine_similarity(tokens_nND.double(), originals_nND.double(), dim=-1)
    return {
        "codec_of_the_originals": codec,
        "mean_cosine_to_the_originals": float(cosine_nN.mean()),
        "first_percentile": float(torch.quantile(cosine_nN, 0.01)),
        "mean_of_class_tokens": float(cosine_nN[:, 0].mean()),
    }


def _int8_facts(tokens_nND: torch.Tensor) -> dict[str, float]:
    """A component is rounded by half a step at most; likely, evenly anywhere within that."""
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
