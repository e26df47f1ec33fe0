"""What `segment` has planned: rates, first weights, and windows at each scale."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.dense_protocol import differing_fields
from milan_pipeline.evaluate.segmentation.inference import Inference, PrepareImage
from milan_pipeline.evaluate.segmentation.task import Segmentation
from milan_pipeline.images.crops import Pixels
from milan_pipeline.stages.segment.choices import evaluation_config, labels_of
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.segment.evaluate import plan_evaluation
from milan_pipeline.stages.segment.plan import plan
from tests.support.exports import CLASSES, segmenter_run
from tests.support.pictures import sample, write_ade_tree


@pytest.fixture
def planned(tmp_path):
    """Return a function that settles a run of nine steps, with some options changed."""
    images = write_ade_tree(tmp_path, {"training": 12, "validation": 2}) / "images"

    def settle(**changes):
        options: dict[str, Any] = {
            "encoder": "timm:test_vit", "train": str(images / "training"),
            "val": str(images / "validation"), "out": str(tmp_path / "run"), "classes": 3,
            "image_size": 32, "channels": 8, "batch_size": 4, "steps": 9,
        }  # fmt: skip
        return plan(Segment(**options | changes), torch.device("cpu"))

    return settle


def test_the_rate_rises_for_the_warm_up_steps_and_falls_in_a_straight_line(planned):
    plan = planned(warmup_steps=3, base_lr=0.04)
    task = Segmentation(plan.built[0], plan.recipe)
    rates = [task.rate(plan.clock.fractional_epoch(step)) for step in range(10)]
    expected = [0, 1 / 3, 2 / 3, *(1 - step / 6 for step in range(7))]
    assert rates == pytest.approx([0.04 * 4 / 16 * part for part in expected])


def test_the_segmenter_begins_with_the_encoders_weights(planned):
    plan = planned()
    nn.init.constant_(plan.backbone.model.get_parameter("norm.weight"), 2.0)
    given = plan.backbone.model.state_dict()
    found = plan.built[0].encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in given.items())


def test_the_classes_have_the_names_of_a_file(planned, tmp_path):
    assert planned().built[1].classes == ()
    file = tmp_path / "names.txt"
    file.write_text("sky\r\n tree trunk \nwater\n", encoding="utf-8")
    plan = planned(class_names=str(file))
    assert plan.built[1].classes == plan.class_names == ("sky", "tree trunk", "water")
    for text, said in (
        ("sky\nwater\n", "has 2 lines for 3 classes; give the name of one class in each line"),
        ("sky\n\nwater", "line 2 is empty; give its class a name"),
        ("sky\nwater\nsky", "has the name 'sky' twice"),
        (None, "cannot be read"),
    ):
        file.write_text(text) if text else file.unlink()
        assert plan.built[1].classes == plan.class_names == ("sky", "tree trunk", "water")
        with pytest.raises(ConfigError, match=f"--class-names .*{said}"):
            planned(class_names=str(file))


def test_a_segmenter_that_is_scored_keeps_its_names(planned, tmp_path):
    config = planned().config
    segmenter_run(tmp_path / "old")
    scored = dataclasses.replace(
        config, encoder=str(tmp_path / "old/best.safetensors"), eval_only=True, steps=None,
        out=str(tmp_path / "scores"), classes=None, channels=8,
    )  # fmt: skip
    assert plan_evaluation(scored, torch.device("cpu")).class_names == CLASSES


def test_images_are_looked_at_by_windows_at_each_scale(planned):
    plan = planned(stride=32)
    assert windows_of(plan, stride=21) == 5  # of 96 by 32 pixels: at 0, 21, 42, 63 and 64
    assert windows_of(plan) == 3
    # At half the scale two windows see all, at 1.75 times six by two see 168 by 56 pixels.
    assert windows_of(plan, multi_scale=True) == 2 * sum((2, 3, 3, 8, 10, 12))


def test_the_card_tells_what_the_figure_depends_on(planned):
    linear = planned(head="linear", freeze=True, stride=20, reduce_zero_label=True)
    card = linear.card["protocol"]
    assert (card["encoder"], card["features"]) == ("frozen", "patches after the last norm")
    assert card["method"].startswith("linear: BatchNorm and a 1x1 convolution")
    assert card["resolution"] == "short side 32 pixels, long side at most 128"
    assert (card["crop"], card["stride"]) == ("windows of 32 x 32 pixels", 20)
    assert (card["masks_scored_at"], card["classes"]) == ("their own size", 3)
    assert card["ignored"] == [255, 0]
    assert (card["training"]["steps"], card["training"]["base_lr"]) == (9, 1e-3)
    whole = planned(evaluate="whole", multi_scale=True, long_side=0).card["protocol"]
    assert (whole["crop"], whole["stride"], whole["mirrored"]) == ("none", None, True)
    assert (whole["encoder"], len(whole["scales"])) == ("trained", 6)
    assert whole["resolution"] == "short side 32 pixels"
    fields = ["method", "encoder", "features", "resolution", "crop", "stride", "scales", "mirrored"]
    assert set(fields) <= set(differing_fields([card, whole]))


def windows_of(plan, **changes):
    """Count the windows in which an image of 96 by 32 pixels is looked at."""
    config = dataclasses.replace(plan.config, **changes)
    how, seen = evaluation_config(config, *plan.built).inference, []

    def logits_of(images):
        seen.extend(images)
        return torch.zeros(len(images), 3, *images.shape[-2:])

    pixels = Pixels((0.0,) * 3, (1.0,) * 3, torch.device("cpu"))
    image = PrepareImage(how, labels_of(config))(sample(size=(32, 96)))
    Inference(logits_of, pixels, how).labels([image])
    return len(seen)
