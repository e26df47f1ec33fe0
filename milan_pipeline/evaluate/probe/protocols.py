"""Numbers of the linear protocols; without torch, so that options can have them as defaults.

MILAN's repository follows MAE (arXiv 2111.06377, appendix A.1), the sweep is DINOv2's (arXiv
2304.07193, appendix B.3, and its repository's linear evaluation).
"""

import dataclasses

from milan_pipeline.errors import ConfigError

BATCH = 16384
BASE_BATCH = 256
STEPS_PER_EPOCH = 78
"""Of ImageNet-1K's 1,281,167 images in batches of 16384."""
SMALLEST_BATCH = 16
BASE_RATE, LARGE_BASE_RATE, LARGE_WIDTH = 0.05, 0.02, 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialLinear:
    """MILAN's linear protocol.

    Attributes:
        epochs: of training.
        warmup_epochs: in which the rate rises from 0.
        batch: samples a step; the rate is scaled by it. None takes 16384 or, for a set smaller than
            ImageNet, a 78th of it, with the rate of 16384. An epoch then has as many steps as with
            ImageNet: steps of LARS are relative to the weights, and fewer or shorter ones would end
            far from the optimum.
        base_rate: for a batch of 256; None takes 0.05, or 0.02 (ViT-L's) from 1024 features on.
        seed: of the first weights and the order.
        device: where to compute.
    """

    epochs: int = 100
    warmup_epochs: float = 10.0
    batch: int | None = None
    base_rate: float | None = None
    seed: int = 0
    device: str = "cpu"

    def batch_of(self, samples: int) -> int:
        """Return the batch for a set of so many samples, at most all of them.

        Raises:
            ConfigError: it is less than two, which is too few for BatchNorm's statistics.
        """
        suits = min(BATCH, max(samples // STEPS_PER_EPOCH, SMALLEST_BATCH))
        batch = min(samples, suits if self.batch is None else self.batch)
        if batch < 2:
            raise ConfigError(
                f"--linear-batch {batch} has no statistics to normalise by; give 2 or more"
            )
        return batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """DINOv2's linear protocol.

    Attributes:
        rates: learning rates to try, for a batch of 256; scaled linearly with the batch.
        steps: of training.
        batch: samples a step; all of a smaller set.
        seed: of the first weights and the order.
        device: where to compute.
    """

    rates: tuple[float, ...] = (
        1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
    )  # fmt: skip
    steps: int = 12_500
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"


ATTENTIVE_BATCH = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attentive:
    """The attentive probe; see `attentive`.

    Attributes:
        rates: learning rates of AdamW to try.
        epochs: of training, for the choice of a rate as for the probe that is scored.
        batch: images a step; None takes 1024 or, for a small set, a 78th of it, so that an epoch
            has 78 steps or more.
        seed: of the first weights and the order.
    """

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    epochs: int = 20
    batch: int | None = None
    seed: int = 0

    @property
    def passes(self) -> int:
        """How often all images are seen: nine tenths, a tenth and all of them, or all alone."""
        return self.epochs if len(self.rates) == 1 else round(1.9 * self.epochs + 0.1)

    def batch_of(self, samples: int) -> int:
        """Return the batch for a set of so many samples, at most all of them."""
        suits = min(ATTENTIVE_BATCH, max(samples // STEPS_PER_EPOCH, SMALLEST_BATCH))
        return min(samples, suits if self.batch is None else self.batch)
