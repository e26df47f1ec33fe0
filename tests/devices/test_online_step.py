"""A step with its teacher online, which `benchmarks.gpu` compares with ours, waits for nothing."""

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.students import make_batch
from tests.support.fake_gpu import GPU, fake_gpu

SIZE, WIDTH, SETTING = 2, 24, Setting(device_name="cpu", tiny=True)


class Zeros:
    """A teacher whose targets are zeros, of views that are smaller than the student's."""

    image_size, device = 24, GPU

    def __call__(self, pixels_BCSS: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        assert (pixels_BCSS.shape, pixels_BCSS.dtype) == ((SIZE, 3, 24, 24), torch.uint8)
        tokens = torch.zeros(SIZE, 1 + SETTING.patches, WIDTH, device=pixels_BCSS.device)
        return tokens, torch.ones(SIZE, SETTING.patches, device=pixels_BCSS.device)


def test_a_batch_is_made_on_the_gpu_without_a_copy() -> None:
    side = SETTING.image_size
    with fake_gpu() as copies:
        views = torch.zeros(SIZE, 3, side, side, dtype=torch.uint8, device=GPU)
        batch = make_batch(SETTING, Zeros(), views, ["a", "b"])
        assert copies.made == []
        tensors = [each for each in batch if isinstance(each, torch.Tensor)]
        assert {tensor.device for tensor in tensors} == {GPU}


def test_masks_and_targets_belong_together() -> None:
    side, patch = SETTING.image_size, SETTING.patch_size

    class Numbers(Zeros):
        """A teacher whose targets are the numbers of tokens."""

        image_size = side

        def __call__(self, _: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
            numbers = torch.arange(1 + SETTING.patches).float()
            return numbers.expand(SIZE, -1)[..., None], torch.ones(SIZE, SETTING.patches)

    views = torch.arange(side // patch).repeat_interleave(patch).to(torch.uint8)
    columns = views.expand(SIZE, 3, side, side).contiguous()
    batch = make_batch(SETTING, Numbers(), columns, ["a", "b"])
    order = torch.cat([batch.kept_BK, batch.masked_BM], dim=1)
    assert (order.sort(1).values == torch.arange(SETTING.patches)).all()
    assert (batch.codes[0][:, 1:, 0] == order + 1).all()
    assert (batch.codes[0][:, 0] == 0).all()
    assert (batch.patches_BKP == (batch.kept_BK % (side // patch))[..., None]).all()
