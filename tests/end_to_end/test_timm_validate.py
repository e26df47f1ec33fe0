"""An exported classifier, scored by timm's own parts, has the same accuracy to the last image."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.utils.metrics import accuracy

from tests.support.finetune import finetune
from tests.support.labelled import write_coloured

EACH = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that learns a little, and where its validation images are."""
    root = tmp_path_factory.mktemp("validate")
    train = write_coloured(root / "train", 4)
    val = write_coloured(root / "val", EACH, seed=1, noise=450)
    finetune(train, val, root / "run", "--max-steps", 6, "--augment", "")
    return root / "run", val


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # timm's reader leaves them open
@pytest.mark.parametrize("prefetched", [True, False])
def test_the_top1_count_is_that_of_timms_validation(run, prefetched):
    folder, val = run
    description = json.loads((folder / "finetuned.json").read_text())
    model = timm.create_model(**description["timm"]).eval()
    model.load_state_dict(load_file(folder / "finetuned.safetensors"), strict=True)
    loader = create_loader(
        create_dataset("", root=str(val)),
        input_size=(3, 32, 32),
        batch_size=16,
        use_prefetcher=prefetched,
        interpolation=description["interpolation"],
        mean=description["mean"],
        std=description["std"],
        crop_pct=description["crop_pct"],
        num_workers=0,
        pin_memory=False,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    right = images = 0
    with torch.inference_mode():
        for shown, labels in loader:
            (top1,) = accuracy(model(shown), labels, topk=(1,))
            right += round(float(top1) * len(labels) / 100)
            images += len(labels)
    scores = json.loads((folder / "scores.json").read_text())["metrics"]
    assert images == 3 * EACH
    assert EACH < right < 3 * EACH  # it has learnt something, and not all
    assert scores["top1"] == 100 * right / images
