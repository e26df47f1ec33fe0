"""Predicts targets of some views by a run, to be shown next to the stored ones.

Legend: n views, N = 1 + L tokens, L patches, K kept, D target width.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.errors import MilanError, MismatchError
from milan_pipeline.pretraining.defaults import DEFAULTS
from milan_pipeline.pretraining.masking import draw_mask
from milan_pipeline.pretraining.resampling import resampled_prior, resampled_tokens
from milan_pipeline.provenance.identity import (
    Identity,
    differences,
    identities_of,
    listing_of,
    without,
)
from milan_pipeline.report.gallery import colours_uri, heat_uri, jpeg_uri, mask_uri, token_colours
from milan_pipeline.report.run.facts import RunReport
from milan_pipeline.report.target_rows import TargetRows
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.weights.loaded_run import LoadedRun, load_run

ABOUT_STORAGE = ("codec", "transcoded_from", "view_policy")
"""Parts of an identity that may differ between the targets of a run and those that it predicts: how
they are stored, and which views they are of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """One view: pictures as data URIs, and the mean cosine of masked and of visible patches.

    `floor_cosine` is what the mean target of the other views scores on the masked ones.
    """

    key: str
    pixels: str
    mask: str
    target: str
    predicted: str
    agreement: str
    masked_cosine: float
    visible_cosine: float
    floor_cosine: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """Of a run: its predictions, their means, and whether it was trained on these images."""

    run: str
    step: int
    overlap: str
    views: list[Prediction]

    @property
    def masked_cosine(self) -> float:
        """The mean over views, and over their masked patches."""
        return float(np.nanmean([view.masked_cosine for view in self.views]))

    @property
    def visible_cosine(self) -> float:
        """Likewise of visible patches."""
        return float(np.nanmean([view.visible_cosine for view in self.views]))

    @property
    def floor_cosine(self) -> float:
        """Likewise of masked patches if each were predicted as the mean target of other views."""
        return float(np.nanmean([view.floor_cosine for view in self.views]))


def teacher_of(run: RunReport, rows: TargetRows, targets: str) -> str:
    """Return the name of the run's teacher that made these targets; refuse those of another.

    Of several that differ in `ABOUT_STORAGE` alone, it is the one that learnt these very targets.

    Raises:
        MismatchError: they are; fields are named. Or they may be of several teachers.
    """
    identities, ours = identities_of(run.record["inputs"]), without(rows.identity, ABOUT_STORAGE)
    if not identities:
        raise MismatchError(
            f"{run.folder} did not learn targets of a teacher; leave out --targets {targets}"
        )
    other, fitting = [], {}
    for teacher, theirs in identities.items():
        found = differences(without(theirs, ABOUT_STORAGE), ours)
        if not found:
            fitting[teacher] = theirs
        other += [(f"{teacher}.{name}" if teacher else name, a, b) for name, a, b in found]
    if fitting:
        return _only_one(fitting, rows.identity, targets)
    raise MismatchError(
        f"{run.folder} was trained on other targets than --targets {targets}: "
        f"{listing_of(other)}; give targets of its teacher"
    )


def _only_one(fitting: Mapping[str, Identity], ours: Identity, targets: str) -> str:
    if len(fitting) == 1:
        return next(iter(fitting))
    same = [teacher for teacher, theirs in fitting.items() if theirs == ours]
    if len(same) == 1:
        return same[0]
    raise MismatchError(
        f"--targets {targets} may be those of {' or '.join(fitting)}, which differ only in "
        f"{', '.join(ABOUT_STORAGE)}; give the target shards that the run was trained on"
    )


def predict(
    run: RunReport,
    rows: TargetRows,
    views: Sequence[NDArray[np.uint8]],
    *,
    teacher: str,
    seed: int,
) -> Predictions:
    """Let a run's newest checkpoint predict views from the patches that it keeps.

    Args:
        run: pretraining's, finished or not.
        rows: targets of its teacher.
        views: their pixels (S, S, 3), S of the student.
        teacher: its name in the run, which may have several.
        seed: of the masks.

    Raises:
        MissingDataError: the run has no checkpoint yet.
    """
    loaded, head = load_run(run.folder), head_of(run, teacher)
    rows = _on_grid(rows, loaded.grid)
    target_nLD = directions(rows.tokens_nND[:, 1:])
    masking = run.record["content"].get("masking") or DEFAULTS["features"]["masking"]
    pairs = [
        _predicted(loaded, masking, rows, number, view, seed=seed)
        for number, view in enumerate(views)
    ]
    colours, floor_nL = token_colours(target_nLD), floors(target_nLD)
    predictions = []
    for number, (kept_K, pred_LS) in enumerate(pairs):
        pred_LD = pred_LS[:, head]
        cosine_L = F.cosine_similarity(pred_LD, target_nLD[number], dim=-1).numpy()
        visible_L = np.zeros(len(cosine_L), dtype=bool)
        visible_L[kept_K] = True
        known_LD = directions(pred_LD.nan_to_num())
        pictures = [
            colours_uri(colours(part.numpy()).reshape(*rows.grid, 3)) if colours else ""
            for part in (target_nLD[number], known_LD)
        ]
        predictions.append(
            Prediction(
                key=rows.key[number],
                pixels=jpeg_uri(views[number]),
                mask=mask_uri(kept_K, rows.grid),
                target=pictures[0],
                predicted=pictures[1],
                agreement=heat_uri(np.nan_to_num(cosine_L).reshape(rows.grid), ends=(0, 1)),
                masked_cosine=_mean(cosine_L[~visible_L]),
                visible_cosine=_mean(cosine_L[visible_L]),
                floor_cosine=_mean(floor_nL[number][np.isfinite(cosine_L) & ~visible_L]),
            )
        )
    newest = newest_checkpoint(run.folder)
    return Predictions(
        run=run.name,
        step=newest[0] if newest else 0,
        overlap=overlap_with_training(run, rows),
        views=predictions,
    )


def head_of(run: RunReport, teacher: str) -> slice:
    """Return which columns of a student's predictions are those of a teacher."""
    start = 0
    for name, identity in identities_of(run.record["inputs"]).items():
        width = int(identity["teacher"]["width"])
        if name == teacher:
            return slice(start, start + width)
        start += width
    raise KeyError(teacher)


def floors(target_nLD: torch.Tensor) -> NDArray[np.float32]:
    """Return the cosine (n, L) of each target to the mean target of all other views.

    That is what a prediction scores which does not look at its image. Of a single view, whose own
    mean there is alone, it is a little too high.

    Args:
        target_nLD: of length 1.
    """
    sum_n1D = target_nLD.sum(dim=1, keepdim=True)
    others_n1D = sum_n1D.sum(dim=0) - sum_n1D if len(target_nLD) > 1 else sum_n1D
    cosines: NDArray[np.float32] = F.cosine_similarity(others_n1D, target_nLD, dim=-1).numpy()
    return cosines


def overlap_with_training(run: RunReport, rows: TargetRows) -> str:
    """Say whether the run was trained on the image shards of these views, if that is known.

    Its record has the folder of its image shards, and shards are identified by their sha256.
    """
    folder = run.record["config"].get("images")
    try:
        manifest = load_manifest(str(folder), kind="images", allow_unfinished=True)
    except MilanError:
        return "not known, as the images that the run was trained on have moved"
    trained_on = {shard.sha256 for shard in manifest.shards}
    trained = sum(sha256 in trained_on for sha256 in rows.source_sha256)
    if not trained:
        return "held out: none of these views is of an image shard that the run was trained on"
    of_run = f"{trained} of {len(rows)} views are of image shards that the run was trained on"
    return f"{of_run}: not held out"


def _predicted(
    loaded: LoadedRun,
    masking: str,
    rows: TargetRows,
    number: int,
    view_SSC: NDArray[np.uint8],
    *,
    seed: int,
) -> tuple[NDArray[np.int64], torch.Tensor]:
    """Return the patches kept (K,) and the predictions of all patches, all heads side by side."""
    kept_K, masked_M = draw_mask(
        masking, rows.prior_nL[number], loaded.kept, grid=rows.grid, seed=seed, epoch=0,
        key=rows.key[number],
    )  # fmt: skip
    view_CSS = torch.from_numpy(view_SSC).permute(2, 0, 1)
    pred_ND = loaded.predict(view_CSS, torch.from_numpy(kept_K), torch.from_numpy(masked_M))
    return kept_K, pred_ND[1:]


def _on_grid(rows: TargetRows, grid: tuple[int, int]) -> TargetRows:
    """Return targets and priors on the grid of a student that learnt them resampled."""
    if rows.grid == grid:
        return rows
    priors = [resampled_prior(prior_L, rows.grid, grid) for prior_L in rows.prior_nL]
    teacher = {**rows.identity["teacher"], "grid": list(grid)}
    return dataclasses.replace(
        rows,
        identity={**rows.identity, "teacher": teacher},
        prior_nL=np.stack(priors),
        tokens_nND=resampled_tokens(rows.tokens_nND, rows.grid, grid),
    )


def _mean(values: NDArray[np.float32]) -> float:
    """NaN where the run did not supervise any of them."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
