"""What a prediction that does not look at its image scores."""

import pytest
import torch

from milan_pipeline.report.run.predictions import floors


def test_the_floor_is_the_cosine_to_the_mean_target_of_other_views() -> None:
    across, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    target_nLD = torch.stack([torch.stack([across, across]), torch.stack([across, up])])
    # The others' mean of the first view lies between both directions, of the second it is `across`.
    assert floors(target_nLD).tolist() == [pytest.approx([2**-0.5] * 2), pytest.approx([1, 0])]
    assert floors(target_nLD[1:]).tolist() == [pytest.approx([2**-0.5] * 2)]
