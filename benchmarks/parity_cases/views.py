"""The evaluation view: the pixels that `finetune` scores and `probe` encodes."""

from collections.abc import Iterator

import torch

from benchmarks.parity_cases.case import Case, Deviation, largest
from milan_pipeline.evaluate.classification.views import EvaluationViews, ViewConfig
from milan_pipeline.evaluate.evaluation_view import INTERPOLATION, default_crop_pct
from milan_pipeline.evaluate.probe.feature_cache import View
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.shards.random_access import IMAGE_MEMBER

PNG = "png_"


def compare(case: Case) -> Iterator[Deviation]:
    """Yield two deviations for each image, in steps of uint8.

    Raises:
        BadImageError: it cannot be decoded.
        DataError: the case resizes in another way.
    """
    case.require(interpolation=INTERPOLATION)
    size, crop_pct = case.settings["input_size"], _crop_pct(case)
    config = ViewConfig(
        image_size=size, mean=tuple(case.settings["mean"]), augment="", crop_pct=crop_pct, seed=0
    )
    finetune, probe = EvaluationViews(config), View(crop_pct=crop_pct).shown(size)
    for name in sorted(name for name in case.io if name.startswith(PNG)):
        data = case.io[name].numpy().tobytes()
        official = case.out[f"pixels_{name.removeprefix(PNG)}"]
        for stage, view_CHW in (
            ("finetune", finetune({IMAGE_MEMBER: data, "__key__": name})),
            ("probe", probe(decode_rgb(data), name)),
        ):
            own = view_CHW.permute(1, 2, 0)
            what = f"pixels of {name}, {stage}"
            yield largest(what, official, own.to(torch.uint8), case.tolerance("out"))


def _crop_pct(case: Case) -> float:
    """Return our default; if the case resizes to another size, the share that gives that size."""
    size, resize = case.settings["input_size"], case.settings["resize"]
    usual = default_crop_pct(size)
    return usual if int(size / usual) == resize else float(size / (resize + 0.5))
