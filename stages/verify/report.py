"""Run `verify` and print what it finds.

This is separate from the options since it imports torch, which `--help` must not do.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from milan_pipeline import storage
from milan_pipeline.codecs.registry import DIRECTIONAL
from milan_pipeline.core.console import report
from milan_pipeline.core.counting import are
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError
from milan_pipeline.extraction.live_check import Comparison
from milan_pipeline.planning.teacher_speed import LEAST_COSINE
from milan_pipeline.stages.verify.checks import Faults, check_sample, check_units
from milan_pipeline.stages.verify.command import Verify
from milan_pipeline.stages.verify.store import StoreParts
from milan_pipeline.targets.units import Unit

NAMED_UNITS = 10
ROUNDING = 1e-6
"""Rounding error of cosines in float32: that of equal vectors may be below 1."""


def verify(config: Verify, stop: StopRequest) -> None:
    """Check a store; repair it if asked to.

    Raises:
        DataError: a unit is not sound; every unit and reason was printed before.
        ConfigError, MissingDataError, MismatchError: images or teacher are not those of the store.
        InterruptedRunError: a stop was asked for.
    """
    store = StoreParts(config)
    found = _Findings.of(store, store.units, stop)
    report(found.lines())
    repaired: list[Unit] = []
    if config.repair and found.faults:
        repaired = store.repaired(list(found.faults), stop)
        report([f"repaired: {', '.join(unit.path for unit in repaired) or 'nothing'}"])
        again = _Findings.of(store, repaired, stop)
        report(again.lines())
        found = found.after(again, repaired)
    report(document=found.document() | {"repaired": [unit.path for unit in repaired]})
    found.raise_if_unsound(config.store)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Findings:
    """The result of checking some units; `targets` counts those of the sound ones."""

    units: int
    targets: int
    faults: Faults
    extra: int
    leftovers: int
    has_images: bool
    live: list[Comparison]
    precision: str
    repairable: frozenset[Unit]
    is_transcoded: bool
    codec: str
    lossy_before: str | None

    @classmethod
    def of(cls, store: StoreParts, units: Sequence[Unit], stop: StopRequest) -> "_Findings":
        """Check the structure of units, then a sample of the targets in sound units."""
        faults, targets_u, extra = check_units(store, units, stop)
        live, wrong = check_sample(store, units, targets_u, stop)
        for comparison in [] if store.lossy_before else live:
            if not comparison.worst >= store.config.min_cosine - ROUNDING:
                wrong.setdefault(comparison.unit, []).append(
                    f"the target of {comparison.key!r} has a cosine of {comparison.worst:.7f} to "
                    "the live teacher's"
                )
        return cls(
            units=len(units),
            targets=sum(
                int(count)
                for unit, count in zip(units, targets_u, strict=True)
                if unit not in wrong
            ),
            faults=faults | wrong,
            extra=extra,
            leftovers=len(storage.leftovers(store.url)),
            has_images=store.images is not None,
            live=live,
            precision=store.identity["teacher"]["precision"],
            repairable=frozenset(store.repairable(units)),
            is_transcoded=store.is_transcoded,
            codec=store.codec.spec.name,
            lossy_before=store.lossy_before,
        )

    @property
    def fidelity(self) -> float | None:
        """Mean cosine of targets in the store's precision to fp32; None if not compared."""
        if self.precision == "fp32" or not self.live:
            return None
        return sum(comparison.fidelity for comparison in self.live) / len(self.live)

    @property
    def codec_cosines(self) -> dict[str, float] | None:
        """Cosines of stored to recomputed targets; None if none were recomputed."""
        if not self.live:
            return None
        parts = zip(*(comparison.codec_cosines for comparison in self.live), strict=True)
        all_nN, rest_nN = map(torch.cat, parts)
        return {
            "mean": float(all_nN.mean()),
            "first_percentile": float(torch.quantile(all_nN, 0.01)),
            "mean_without_the_largest_channel": float(rest_nN.mean()),
            "its_first_percentile": float(torch.quantile(rest_nN, 0.01)),
        }

    def after(self, again: "_Findings", repaired: Iterable[Unit]) -> "_Findings":
        """Return these findings, updated by units that were repaired and checked again."""
        sound = set(repaired)
        left = {unit: why for unit, why in self.faults.items() if unit not in sound}
        return dataclasses.replace(
            self, faults=left | again.faults, targets=self.targets + again.targets,
            live=[at for at in self.live if at.unit not in self.faults] + again.live,
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Yield the findings as lines for the terminal."""
        for unit, reasons in self.faults.items():
            for reason in reasons:
                yield f"{unit.path}: {reason}"
        yield f"units: {self.units}, not sound: {len(self.faults)}; targets read: {self.targets}"
        if not self.has_images:
            yield "keys and digests were not compared with images: there are none here"
        if self.extra:
            yield f"harmless: {self.extra} names that no mark lists"
        if self.leftovers:
            yield (
                f"left over: {self.leftovers} temporary files of killed writers, which a finished "
                "extract-targets or transcode deletes"
            )
        if self.live:
            worst = min(self.live, key=lambda comparison: comparison.worst)
            numbers = self._numbers()
            yield (
                f"live teacher: {len(self.live)} targets, cosine of tokens {numbers['mean']:.6f} "
                f"in the mean, {numbers['worst']:.6f} at worst ({worst.unit.path} {worst.key}), "
                f"of CLS {numbers['worst_cls']:.6f}; priors within {numbers['prior_error']:.2g}"
            )
            above = (
                "; the codec's own error is taken off above" if self.codec in DIRECTIONAL else ""
            )
            mean, first, rest, rest_first = (self.codec_cosines or {}).values()
            yield (
                f"{self.codec}: mean cosine {mean:.6f} to the teacher's, first percentile "
                f"{first:.6f}; without the largest channel {rest:.6f} and {rest_first:.6f}{above}"
            )
            if self.lossy_before:
                yield (
                    "no cosine is a fault here: targets went through the codec "
                    f"{self.lossy_before} before, whose share in it is not known"
                )
        if self.fidelity is not None:
            yield f"{self.precision} against fp32: mean cosine {self.fidelity:.6f}"

    def document(self) -> dict[str, Any]:
        """Return the JSON object: counts, reasons by unit, and figures of the sample or null."""
        return {
            "units": self.units,
            "targets": self.targets,
            "faults": {unit.path: reasons for unit, reasons in self.faults.items()},
            "extra_names": self.extra,
            "leftovers": self.leftovers,
            "images_compared": self.has_images,
            "live": self._numbers() if self.live else None,
            "fidelity": self.fidelity,
            "codec_cosines": self.codec_cosines,
        }

    def raise_if_unsound(self, url: str) -> None:
        """Fail if a unit is not sound, or if the precision is too far from fp32."""
        if self.faults:
            named = ", ".join(unit.path for unit in list(self.faults)[:NAMED_UNITS])
            raise DataError(
                f"{len(self.faults)} of {self.units} units of {url} {are(len(self.faults))} not "
                f"sound ({named}); "
                f"{self._remedy()}"
            )
        if self.fidelity is not None and self.fidelity < LEAST_COSINE:
            raise DataError(
                f"--precision {self.precision}, in which {url} was made, has a mean cosine of "
                f"{self.fidelity:.6f} to fp32, below {LEAST_COSINE}; extract with --precision fp32"
            )

    def _remedy(self) -> str:
        """Return what repairs the faults; units of a shard that changed cannot be repaired."""
        repaired = len(self.faults.keys() & self.repairable)
        if self.is_transcoded and repaired:
            return "delete their marks, those in its folder done, and run transcode again"
        if self.is_transcoded:
            return "their image shards are others, or gone: give those with --images"
        if repaired == len(self.faults):
            return "--repair extracts them again"
        follow = (
            "as image shards are others than theirs, or gone: give those with --images, or run "
            "extract-targets again"
        )
        if repaired:
            return f"--repair extracts {repaired} of them again, but not the others, {follow}"
        return f"--repair would not extract them again, {follow}"

    def _numbers(self) -> dict[str, float]:
        return {
            "targets": len(self.live),
            "mean": sum(comparison.mean for comparison in self.live) / len(self.live),
            "worst": min(comparison.worst for comparison in self.live),
            "worst_cls": min(comparison.cls for comparison in self.live),
            "prior_error": max(comparison.prior_error for comparison in self.live),
        }
