"""Images seen whole or by windows, at several scales, mirrored: the averages are right."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from milan_pipeline.evaluate.segmentation.inference import (
    Inference,
    InferenceConfig,
    PrepareImage,
    window_starts,
)
from milan_pipeline.evaluate.segmentation.masks import LabelConfig, Labels
from milan_pipeline.evaluate.segmentation.views import ScaleRule
from milan_pipeline.images.crops import Pixels
from tests.support.pictures import labels, sample

MEANING = Labels(LabelConfig(classes=3, ignore_index=255, reduce_zero_label=False))
PIXELS = Pixels((0.5,) * 3, (0.25,) * 3, torch.device("cpu"))


def config(**changes: Any):
    usual: dict[str, Any] = {
        "scale": ScaleRule(short_side=32, long_side=0),
        "factors": (1.0,),
        "flip": False,
        "window": None,
        "stride": 16,
        "multiple": 8,
        "batch": 3,
    }
    return InferenceConfig(**(usual | changes))


def by_pixel(images_BChw):
    """Give logits of each pixel's own colour: no window can change them."""
    assert not any(side % 8 for side in images_BChw.shape[-2:])
    return 4 * images_BChw


def probabilities(logits_of, size=(40, 52), **changes):
    settings = config(**changes)
    scored = PrepareImage(settings, MEANING)(sample(size=size))
    return Inference(logits_of, PIXELS, settings).probabilities(scored.scaled_Chw, size)


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [(32, 32, 16, [0]), (52, 32, 16, [0, 16, 20]), (64, 32, 32, [0, 32]), (33, 32, 16, [0, 1])],
)
def test_windows_cover_a_length(length, window, stride, starts):
    assert window_starts(length, window, stride) == starts


def test_windows_see_what_the_whole_shows():
    whole = probabilities(by_pixel)
    assert whole.shape == (3, 40, 52)
    torch.testing.assert_close(probabilities(by_pixel, window=32), whole)
    torch.testing.assert_close(probabilities(by_pixel, window=32, stride=8), whole)


def test_windows_are_averaged():
    calls: list[torch.Tensor] = []

    def numbered(images_BChw):
        """Give the n-th window the logit n."""
        logits = [torch.full((3, 32, 32), float(len(calls) + at)) for at in range(len(images_BChw))]
        calls.extend(logits)
        return torch.stack(logits) * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)

    found = probabilities(numbered, size=(32, 48), window=32)
    expected = torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(16)
    expected = torch.stack([expected, torch.zeros(48), torch.zeros(48)]).softmax(dim=0)
    torch.testing.assert_close(found, expected[:, None].expand(3, 32, 48))


def test_a_small_image_is_filled_up_to_a_window():
    rule = ScaleRule(short_side=32, long_side=40)
    assert probabilities(by_pixel, size=(20, 80), window=32, scale=rule).shape == (3, 20, 80)


def test_scales_and_flips_are_averaged():
    one, two = (probabilities(by_pixel, factors=(f,)) for f in (1.0, 1.5))
    torch.testing.assert_close(probabilities(by_pixel, factors=(1.0, 1.5)), (one + two) / 2)

    def leftish(images_BChw):
        ramp = torch.linspace(1, 0, images_BChw.shape[-1])
        return images_BChw * 0 + ramp * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)

    plain, both = (probabilities(leftish, flip=flip) for flip in (False, True))
    torch.testing.assert_close(both, (plain + plain.flip(-1)) / 2)


@pytest.mark.parametrize("classes", [2, 8, 9, 30])
def test_classes_that_are_enlarged_a_few_at_a_time_give_the_same(classes):
    """Against an enlargement of all at once."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, classes, 32, 32, generator=generator)

    def drawn(images_BChw):
        return logits[: len(images_BChw)]

    images = [PrepareImage(config(), MEANING)(sample(seed, size=(48, 48))) for seed in range(2)]
    whole = F.interpolate(logits, size=(48, 48), mode="bilinear", align_corners=False)
    inference = Inference(drawn, PIXELS, config())
    assert torch.equal(inference.labels(images), whole.argmax(dim=1))
    found = inference.probabilities(images[0].scaled_Chw, (48, 48))
    torch.testing.assert_close(found, whole[0].softmax(dim=0))
    flipped = Inference(drawn, PIXELS, config(flip=True)).probabilities(
        images[0].scaled_Chw, (48, 48)
    )
    both = whole[0].softmax(dim=0) + whole[0].flip(-1).softmax(dim=0)
    torch.testing.assert_close(flipped, both / 2)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made, in values."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.values = max(self.values, made.numel())
        return made


@pytest.mark.parametrize("flip", [False, True])
def test_no_tensor_is_larger_than_a_forward_pass_or_an_image(flip):
    """However many equal images there are, and however many windows in each."""
    classes, images = 40, [PrepareImage(config(), MEANING)(sample(size=(32, 160)))] * 6
    sizes = config(window=32, stride=16, batch=2, flip=flip)

    def drawn(images_BChw):
        return images_BChw.mean(dim=1, keepdim=True).expand(-1, classes, -1, -1).clone()

    with Largest() as made:
        Inference(drawn, PIXELS, sizes).labels(images)
    assert made.values == classes * 32 * 160


def test_labels_are_the_likeliest_classes_of_all():
    images = [PrepareImage(config(), MEANING)(sample(seed)) for seed in range(5)]
    found = Inference(by_pixel, PIXELS, config()).labels(images)
    truth = torch.stack([torch.from_numpy(labels(seed)) for seed in range(5)])
    assert found.shape == truth.shape
    assert (found == truth).float().mean() > 0.9
