"""Losses between predictions and targets: three losses, four ways to take a target.

Legend: B batch, T supervised tokens, D target width.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from milan_pipeline.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES = ("cosine", "smooth-l1", "mse")
TARGET_NORMS = ("l2", "layer", "none", "phi-s")
SMOOTH_L1_BETA = 2.0


def make_loss(loss: str = "cosine", target_norm: str = "l2") -> Loss:
    """Return the loss that two options name, a function of (pred_BTD, target_BTD).

    It takes any float types, computes in float32 and returns a float32 scalar, the mean over all
    tokens that it is given.

    Args:
        loss: "cosine": 2 - 2 cos(p, t) (MILAN, arXiv 2208.06049, section 3.1). "smooth-l1": the
            prediction as it is against the normalised target, quadratic up to a difference of
            2.0, linear beyond, mean over channels too (feature distillation, arXiv 2205.14141;
            data2vec, arXiv 2202.03555). "mse": the same, squared (MAE, arXiv 2111.06377, whose
            "normalised pixels" are patches through the norm "layer", but for its dividing by the
            square root of the sample's variance, of D - 1 values, and not of D).
        target_norm: "l2": a target of length 1 (MILAN). "layer": of mean 0 and variance 1, layer
            norm without weights (arXiv 2205.14141, "whitening"; MaskDistill, arXiv 2210.10615).
            The cosine is then taken with the layer-normed target. "none": as it is stored, so that
            a teacher whose values are large counts more than others; the cosine is that of "l2".
            "phi-s": as it is given, since `phi_s.StandardisedTargets` has standardised it; the
            cosine is that of targets around their mean.

    Raises:
        ConfigError: there is no such loss or norm.
    """
    if loss not in LOSSES:
        raise ConfigError(f"--loss {loss!r} is unknown; choose one of {', '.join(LOSSES)}")
    if target_norm not in TARGET_NORMS:
        raise ConfigError(
            f"--target-norm {target_norm!r} is unknown; choose one of {', '.join(TARGET_NORMS)}"
        )
    normalised = NORMS[target_norm]
    if loss == "smooth-l1":
        return lambda pred_BTD, target_BTD: smooth_l1_loss(pred_BTD, normalised(target_BTD))
    if loss == "mse":
        return lambda pred_BTD, target_BTD: F.mse_loss(pred_BTD.float(), normalised(target_BTD))
    if target_norm != "layer":  # lengths do not matter to the cosine
        return cosine_loss
    return lambda pred_BTD, target_BTD: cosine_loss(pred_BTD, normalised(target_BTD))


def cosine_loss(pred_BTD: Tensor, target_BTD: Tensor) -> Tensor:
    """Return the mean over all tokens of |p - t|^2 = 2 - 2 cos(p, t), both sides L2-normalised.

    (MILAN, arXiv 2208.06049, section 3.1; CLS and visible tokens count like masked ones.)

    Args:
        pred_BTD: any float dtype; computed in float32.
        target_BTD: the same.

    Returns:
        float32 scalar, in [0, 4].
    """
    return 2 - 2 * (l2_normalised(pred_BTD) * l2_normalised(target_BTD)).sum(dim=-1).mean()


def smooth_l1_loss(pred_BTD: Tensor, target_BTD: Tensor) -> Tensor:
    """Return the mean over tokens and channels of the smooth L1 distance, in float32."""
    return F.smooth_l1_loss(pred_BTD.float(), target_BTD.float(), beta=SMOOTH_L1_BETA)


def l2_normalised(tokens_BTD: Tensor) -> Tensor:
    """Scale each token to length 1, in float32."""
    return F.normalize(tokens_BTD.float(), dim=-1)


def layer_normalised(tokens_BTD: Tensor) -> Tensor:
    """Bring each token to mean 0 and variance 1 over its channels, in float32."""
    return F.layer_norm(tokens_BTD.float(), tokens_BTD.shape[-1:])


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": l2_normalised,
    "layer": layer_normalised,
    "none": Tensor.float,
    "phi-s": Tensor.float,
}
