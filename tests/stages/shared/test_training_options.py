"""What training refuses by its options alone, before torch is loaded."""

import pytest

from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared.training_options import TrainingOptions


def test_a_batch_that_lanes_do_not_divide_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="--batch-size 10 is not a multiple of --lanes 4"):
        TrainingOptions(out="x", batch_size=10, lanes=4)
    assert TrainingOptions(out="x", batch_size=8, lanes=4).lanes == 4
