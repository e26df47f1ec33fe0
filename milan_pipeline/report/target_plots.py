"""Plots of a sample of targets: priors, norms, spectrum.

Legend: n samples, L patches, D target width.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from milan_pipeline.codecs.spectrum import directions, effective_rank, spectrum_of
from milan_pipeline.report.svg import DASHES, SERIES, Plot, draw
from milan_pipeline.report.target_rows import TargetRows

BINS = 60
SPECTRUM_TOKENS = 20_000
SHARES = (0.1, 0.25, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetPlots:
    """Plots, and what they show as numbers."""

    plots: list[Plot]
    figures: dict[str, Any]


def plot_targets(rows: TargetRows) -> TargetPlots:
    """Plot the priors, the norms and the spectrum of some targets."""
    norm_nN = torch.linalg.vector_norm(rows.tokens_nND, dim=-1).numpy()
    relative_nL = rows.prior_nL * rows.prior_nL.shape[1] / rows.prior_nL.sum(axis=1, keepdims=True)
    variance_D = spectrum_of(_thinned_directions(rows.tokens_nND)).variance_D
    shares = _shares(relative_nL)
    rank = effective_rank(variance_D)
    return TargetPlots(
        plots=[
            _prior_plot(relative_nL),
            _share_plot(relative_nL),
            _norm_plot(norm_nN, directional=rows.codec.spec.is_directional),
            _spectrum_plot(variance_D, rank),
        ],
        figures={
            **{f"prior_in_its_top_{share:.0%}_of_patches_share": v for share, v in shares.items()},
            "mean_norm_of_patches": float(norm_nN[:, 1:].mean()),
            "mean_norm_of_CLS": float(norm_nN[:, 0].mean()),
            "effective_rank_of_directions": rank,
            "target_width": len(variance_D),
        },
    )


def _prior_plot(relative_nL: NDArray[np.float32]) -> Plot:
    def onto(axes: Axes) -> None:
        low, high = np.quantile(relative_nL, [0.0005, 0.9995])
        edges = np.geomspace(max(low, 1e-4), max(high, 2e-4) * 1.01, BINS)
        weights = np.full(relative_nL.size, 1 / relative_nL.size)
        axes.hist(
            relative_nL.ravel(), bins=list(edges), weights=weights, histtype="stepfilled",
            color=SERIES[0],
        )  # fmt: skip
        axes.axvline(1, color=SERIES[1], linestyle="--")
        place = ("data", "axes fraction")
        axes.annotate("uniform", (1, 1), xycoords=place, va="bottom", ha="center")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda times, _: f"{times:g}")
        axes.set(xlabel="prior of a patch, times the uniform one", ylabel="share of patches")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    middle = float(np.median(relative_nL))
    words = f"Histogram of mask priors, logarithmic; the median is {middle:.2g} times uniform."
    return draw("Mask prior", words, onto)


def _shares(relative_nL: NDArray[np.float32]) -> dict[float, float]:
    held_L = _held(relative_nL)
    return {share: float(held_L[max(0, round(share * len(held_L)) - 1)]) for share in SHARES}


def _held(relative_nL: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean share of the prior that the k first patches of a view hold."""
    sorted_nL = -np.sort(-relative_nL, axis=1)
    held: NDArray[np.float64] = (sorted_nL.cumsum(axis=1) / sorted_nL.shape[1]).mean(axis=0)
    return held


def _share_plot(relative_nL: NDArray[np.float32]) -> Plot:
    held_L = _held(relative_nL)
    place_L = np.arange(1, len(held_L) + 1) / len(held_L)

    def onto(axes: Axes) -> None:
        axes.plot(place_L, held_L, color=SERIES[0], label="these targets")
        axes.plot([0, 1], [0, 1], color=SERIES[1], linestyle="--", label="uniform prior")
        axes.set(xlabel="share of a view's patches, best first", ylabel="share of the prior")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="lower right")

    quarter = _shares(relative_nL)[0.25]
    words = f"A quarter of the patches holds {quarter:.0%} of the prior; of a uniform one, 25%."
    return draw("How concentrated the prior is", words, onto)


def _norm_plot(norm_nN: NDArray[np.float32], *, directional: bool) -> Plot:
    def onto(axes: Axes) -> None:
        parts = (("patches", norm_nN[:, 1:]), ("CLS", norm_nN[:, 0]))
        high = max(float(np.quantile(part, 0.999)) for _, part in parts)
        low = min(float(np.quantile(part, 0.001)) for _, part in parts)
        edges = np.linspace(low, high if high > low else low + 1, BINS)
        for number, (name, part) in enumerate(parts):
            weights = np.full(part.size, 1 / part.size)
            axes.hist(
                part.ravel(), bins=list(edges), weights=weights, histtype="step", label=name,
                color=SERIES[number], linestyle=DASHES[number], linewidth=1.4,
            )  # fmt: skip
        axes.set(xlabel="norm of a token", ylabel="share of tokens")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend()

    ends = " The codec stores directions: decoded, all are about 1 long." if directional else ""
    words = (
        f"Histogram of norms: patches {norm_nN[:, 1:].mean():.3g} on average, CLS tokens "
        f"{norm_nN[:, 0].mean():.3g}.{ends}"
    )
    return draw("Norms of decoded targets", words, onto)


def _spectrum_plot(variance_D: NDArray[np.float64], rank: float) -> Plot:
    def onto(axes: Axes) -> None:
        axes.plot(np.arange(1, len(variance_D) + 1), variance_D, color=SERIES[0])
        axes.set(xlabel="principal component of directions", ylabel="variance", yscale="log")
        positive = variance_D[variance_D > 1e-12]
        if len(positive):
            axes.set_ylim(float(positive.min()) / 2, float(positive.max()) * 2)

    words = f"Variances of principal components; effective rank {rank:.0f} of {len(variance_D)}."
    return draw("Spectrum of the targets", words, onto)


def _thinned_directions(tokens_nND: torch.Tensor) -> NDArray[np.float32]:
    flat_TD = tokens_nND.flatten(0, 1)
    every = -(-len(flat_TD) // SPECTRUM_TOKENS)
    direction_TD: NDArray[np.float32] = directions(flat_TD[::every]).numpy()
    return direction_TD
