"""Run `codecs`: measure codecs, print the results and draw them.

This is separate from the options since it imports torch, which `--help` must not do.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from milan_pipeline import storage
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fitting import fit_codec, fit_steps
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.registry import BITS, BITS_PER_BYTE, LEVELS, CodecSpec, parse_codec
from milan_pipeline.codecs.spectrum import effective_rank
from milan_pipeline.core.console import aligned, report, warn
from milan_pipeline.core.devices import pick_device
from milan_pipeline.core.progress import progress_bar, ticking
from milan_pipeline.errors import ConfigError
from milan_pipeline.planning.codec_measures import CodecMeasures, FileBytes, Measurement
from milan_pipeline.planning.codec_targets import stored_targets, synthetic_targets
from milan_pipeline.stages.codecs.command import MeasureCodecs
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.store_record import finished_units, read_store_record

NAMED = ("float16", "bfloat16", "int8", *LEVELS)
FRONTIER_RATIOS = (8, 12, 16, 24, 32, 48, 60, 96)
COLUMNS = {
    "codec": ("codec", "{}"),
    "bytes_per_token": ("B/token", "{:.4g}"),
    "bytes_per_sample": ("B/sample", "{}"),
    "compression": ("smaller", "{:.3g}x"),
    "files_compression": ("shards", "{:.3g}x"),
    "store_compression": ("store", "{:.3g}x"),
    "mean_cosine": ("cosine", "{:.5f}"),
    "p01_cosine": ("1st pct", "{:.5f}"),
    "cls_cosine": ("CLS", "{:.5f}"),
    "rest_cosine": ("rest", "{:.5f}"),
    "rest_p01_cosine": ("its 1st pct", "{:.5f}"),
    "colour_agreement": ("colours", "{:.4f}"),
    "bits_over_bound": ("bits over", "{:.2f}"),
    "encode_per_s": ("encode/s", "{:.0f}"),
    "decode_per_s": ("decode/s", "{:.0f}"),
}
"""Columns of the table: a heading and a format for each key of the JSON objects."""


def measure(config: MeasureCodecs) -> None:
    """Measure, print a table or a JSON list, and draw.

    Raises:
        ConfigError: a codec or the device is unknown, or a codec does not fit the targets.
        MissingDataError: there is no store, or it lacks units.
        MismatchError: the store's extraction has not ended.
        DataError: the store is damaged.
        StorageError: the store cannot be read, or the picture cannot be written.
    """
    device = pick_device(config.device)
    storage.require_writable(storage.folder_of(config.plot))
    identity = read_identity(config.store)
    specs = chosen(config.codec, identity["teacher"]["width"])
    record = read_store_record(config.store, identity)
    units = finished_units(
        config.store, identity, record, views=1, allow_unfinished=config.allow_unfinished
    )
    files = FileBytes(config.store, identity, units, views=record.views)
    sets = [stored_targets(config.store, identity, units, config.samples)]
    if config.synthetic is not None:
        sets.append(synthetic_targets(sets[0], config.synthetic))
    found = {one: measured(one, specs) for one in (Measurement(s, files, device) for s in sets)}
    storage.put_bytes(config.plot, _picture(found))
    rows = [dataclasses.asdict(row) for rows in found.values() for row in rows]
    report([*_lines(found), f"picture: {config.plot}"], rows)


def chosen(texts: Sequence[str], width: int) -> dict[str, CodecSpec]:
    """Return the codecs of the options, for targets of width D; without any, return all codecs.

    All codecs are the named ones and a range of sizes; codecs of equal bytes are listed once.

    Raises:
        ConfigError: a codec is unknown, or takes more than int8.
    """
    specs = {text: parse_codec(text).for_width(width) for text in texts or NAMED}
    if texts:
        return specs
    rotations = [] if width % BITS_PER_BYTE else [f"rotation:bits={bits}" for bits in BITS]
    for text in [*rotations, *(f"joint:ratio={ratio}" for ratio in FRONTIER_RATIOS)]:
        spec = parse_codec(text).for_width(width)
        if spec not in specs.values():
            specs[text] = spec
    return specs


def measured(measurement: Measurement, specs: Mapping[str, CodecSpec]) -> list[CodecMeasures]:
    """Fit each codec that needs it, and measure it.

    A codec that cannot be fitted is left out with a warning.

    Raises:
        ConfigError: none can be.
    """
    total = sum(fit_steps(spec) for spec in specs.values() if spec.needs_fit)
    name = measurement.targets.name
    bar = progress_bar(f"codecs, {name}", total=total, unit="steps")
    found: list[CodecMeasures] = []
    with bar, ticking(bar):
        for text, spec in specs.items():
            try:
                codec = _fitted(measurement, text, spec, bar)
            except ConfigError as error:
                if not found and text == list(specs)[-1]:
                    raise
                warn(f"{text} is left out: {error}")
            else:
                found.append(measurement.of(text, codec))
    return found


def _fitted(measurement: Measurement, text: str, spec: CodecSpec, bar: Any) -> Codec:
    if not spec.needs_fit:
        return make_codec(text)
    return fit_codec(spec, measurement.targets.fit_nND, bar.update)


def _picture(found: Mapping[Measurement, list[CodecMeasures]]) -> bytes:
    from milan_pipeline.planning.codec_plot import Drawn, draw

    return draw(
        [
            Drawn(title=one.targets.title, variance_D=one.variance_D, measures=rows)
            for one, rows in found.items()
        ]
    )


def _lines(found: Mapping[Measurement, list[CodecMeasures]]) -> Iterator[str]:
    """Yield a heading, notes and a table for each set of targets."""
    for measurement, rows in found.items():
        width = len(measurement.variance_D)
        rank = effective_rank(measurement.variance_D)
        yield f"{measurement.targets.title}; effective rank {rank:.1f} of {width}"
        yield from (f"note: {note}" for note in measurement.targets.notes)
        yield from aligned(
            [
                [heading for heading, _ in COLUMNS.values()],
                *([_cell(row, name) for name in COLUMNS] for row in rows),
            ],
            gap=2,
        )


def _cell(row: CodecMeasures, name: str) -> str:
    value = getattr(row, name)
    return "-" if value is None else COLUMNS[name][1].format(value)
