"""Defaults of a run's choices: MILAN's, or MAE's if the targets are pixels."""

from collections.abc import Mapping

MILANS = {
    "decoder": "prompting",
    "loss": "cosine",
    "target_norm": "l2",
    "supervise": "all",
    "masking": "semantic",
}
"""MILAN, arXiv 2208.06049, section 3."""

MAES = {
    "decoder": "mae",
    "loss": "mse",
    "target_norm": "layer",
    "supervise": "masked",
    "masking": "random",
}
"""MAE with normalised pixels, arXiv 2111.06377, sections 3 and 4.1."""

DEFAULTS: Mapping[str, Mapping[str, str]] = {"features": MILANS, "pixels": MAES}
TARGETS = tuple(DEFAULTS)
