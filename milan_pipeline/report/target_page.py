"""The page of a target store or of target shards.

Legend: n samples, L patches, D target width.
"""

import base64
import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.images.views import stated_interpolation
from milan_pipeline.report.facts import Facts, text_of
from milan_pipeline.report.fidelity import fidelity_facts, measured_facts, read_originals
from milan_pipeline.report.gallery import entries, fitting_ratios, view_side
from milan_pipeline.report.neighbours import Neighbours, find_neighbours
from milan_pipeline.report.page import Gallery, Page, shown
from milan_pipeline.report.target_plots import plot_targets
from milan_pipeline.report.target_rows import TargetRows, ViewSource, draw_rows, read_target_rows

SAMPLE = 256
"""Targets that histograms are of."""
PRIOR_STEPS = 8
"""Of the priors that the page has: eighths of the uniform one, up to 255 of them."""


def target_page(
    url: str,
    facts: Facts,
    *,
    images: str | None,
    originals: str | None,
    gallery: int,
    seed: int,
) -> Page:
    """Look at some targets and make their page.

    Args:
        url: a target store or a folder of target shards.
        facts: of it.
        images: folder of the image shards that they were made of, or None.
        originals: store of the targets that they were made of by another codec, or None.
        gallery: views to show.
        seed: of what is looked at, and of the masks.

    Raises:
        MissingDataError: there is no finished target, or an image is not there.
        MismatchError: images or originals are not those that the targets were made of.
        DataError: what is read is damaged.
    """
    rows = read_target_rows(url, max(SAMPLE, gallery), seed)
    plots = plot_targets(rows)
    chosen = some_of(rows, gallery, seed)
    views = None if images is None else _views(images, chosen)
    near = find_neighbours(chosen.tokens_nND[:, 1:], seed)
    fidelity = fidelity_facts(rows)
    if originals is not None:
        fidelity = measured_facts(rows.tokens_nND, *read_originals(originals, rows)) | fidelity
    found = facts | {
        "fidelity of the codec": fidelity,
        "sampled targets": plots.figures,
    }
    kind = next(iter(facts))
    return Page(
        title=storage.basename(url.rstrip("/")),
        kind=kind,
        state=str(facts[kind]["state"]),
        paths=[url],
        highlights=_highlights(facts),
        facts=shown(found),
        notes=_notes(rows, chosen, near, images=images, originals=originals, seed=seed),
        gallery=Gallery(
            entries=entries(chosen, views, seed=seed),
            grid=rows.grid,
            ratios=fitting_ratios(rows.prior_nL.shape[1]),
            data=_data(chosen, near),
        ),
        plots=plots.plots,
        plots_title="Priors, norms, spectrum",
        plots_words=f"Of {len(rows)} targets, drawn at random.",
    )


def some_of(rows: TargetRows, count: int, seed: int) -> TargetRows:
    """Return some of the rows, drawn at random, or all where they are fewer."""
    chosen = draw_rows(len(rows), count, np.random.Generator(np.random.PCG64(seed)))
    return dataclasses.replace(
        rows,
        source=[rows.source[number] for number in chosen],
        source_sha256=[rows.source_sha256[number] for number in chosen],
        key=[rows.key[number] for number in chosen],
        view=[rows.view[number] for number in chosen],
        prior_nL=rows.prior_nL[chosen],
        tokens_nND=rows.tokens_nND[torch.from_numpy(chosen)],
        records=rows.records[chosen],
    )


def _data(rows: TargetRows, near: Neighbours) -> dict[str, Any]:
    prior_nL = rows.prior_nL
    relative_nL = prior_nL * prior_nL.shape[1] / prior_nL.sum(axis=1, keepdims=True)
    steps_nL: NDArray[np.uint8] = (relative_nL * PRIOR_STEPS).round().clip(0, 255).astype(np.uint8)
    return {
        "grid": list(rows.grid),
        "priors": base64.b64encode(steps_nL.tobytes()).decode(),
        "priorSteps": PRIOR_STEPS,
        **near.for_page(),
    }


def _highlights(facts: Facts) -> list[tuple[str, str]]:
    counts, sizes, codec = facts["counts"], facts["sizes"], facts["codec"]
    everything = sizes.get("all_targets_bytes", sizes.get("all_shards_bytes"))
    smaller = codec["smaller_than_float16"]
    saved = [("float16 would be larger by", f"{smaller:.3g} times")] if smaller > 1 else []
    return [
        ("targets", text_of("", counts["targets"])),
        ("views", text_of("", counts["views"])),
        ("in all", text_of("bytes", everything)),
        ("a target", text_of("bytes", sizes["one_target_bytes"])),
        ("codec", str(codec["name"])),
        *saved,
        ("images skipped", text_of("", facts["ledger"]["skipped"])),
    ]


def _notes(
    rows: TargetRows,
    chosen: TargetRows,
    near: Neighbours,
    *,
    images: str | None,
    originals: str | None,
    seed: int,
) -> list[str]:
    blocks = "" if rows.blocks is None else f", out of {rows.blocks} blocks of neighbours"
    sampled = (
        f"Histograms, norms and spectrum are of {len(rows)} of {rows.total:,} targets{blocks}; the "
        f"gallery shows {len(chosen)} of those. Both were drawn by the seed {seed}. Counts, sizes "
        "and the ledger are of everything."
    )
    pixels = (
        "No pixels were read; --images gives them."
        if images is None
        else f"Views were cut from the image shards {_as_seen(rows)}; each image's bytes were "
        "checked against the hash that is stored with its target."
    )
    masks = "Masks are drawn by the prior as in training, where each run and epoch draws its own."
    nearest = (
        f"The page finds nearest patches by {len(near.step)} principal axes of the targets' "
        "directions, a byte each. Against whole targets its cosines are off by "
        f"{near.error:.4f} on average, and {near.agreement:.0%} of patches have the same nearest "
        "patch in another view."
    )
    fidelity = (
        "What the codec lost cannot be computed from what is stored, as the originals are not "
        "kept; bounds are among the facts. --originals measures it if a store still has them, "
        "`milan-pipeline verify` compares with the teacher."
        if originals is None
        else "Cosines to the originals are of all tokens of the sampled targets."
    )
    return [sampled, pixels, masks, nearest, fidelity]


def _as_seen(rows: TargetRows) -> str:
    if rows.identity["view_policy"].get("teacher_sees") == "clean":
        return "with the changes of colours that a student sees, and the teacher did not see"
    return "as the teacher saw them"


def _views(images: str, rows: TargetRows) -> list[NDArray[np.uint8]]:
    """Return the pixels of stored views, with patches as large as the page shows them."""
    interpolation = stated_interpolation(rows.identity["preprocessing"])
    return list(ViewSource(images).views(rows, view_side(rows.grid), interpolation))
