"""Target stores of any codec, made of the decoded targets of another one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from milan_pipeline.codec_files import read_store_codec, write_store_codec
from milan_pipeline.codecs import Codec, encode_prior, make_codec, parse_codec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.identity import content_hash
from milan_pipeline.provenance import read_record
from milan_pipeline.target_store import UnitBlock, create_root, read_identity
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.unit_writer import UnitWriter
from milan_pipeline.units import Mark, Unit, read_marks, units_of_extent
from milan_pipeline.verification import read_codes
from tests.conftest import values_of


def recoded_store(source: Path, out: Path, text: str) -> Path:
    """Write the store that extract-targets would have with another codec, fitted to all targets."""
    identity = read_identity(str(source))
    decoder = read_store_codec(str(source), identity)
    units = list_store_units(source)
    marks = read_marks(str(source), 1 + max(unit.view for unit in units))
    tokens = {unit: decoded(source, unit, marks[unit.mark_path], decoder) for unit in units}
    codec = codec_for(text, torch.cat(list(tokens.values())).flatten(0, 1))
    identity["codec"] = codec.parameters()
    write_store_codec(str(out), codec)
    create_root(str(out), identity)
    for unit in units:
        group = open_unit(str(source), unit, marks[unit.mark_path])
        block = recoded_block(group, tokens[unit], codec)
        writer = UnitWriter(
            str(out), unit, identity_hash=content_hash(identity), codec=codec,
            shape=block.codes.shape[1:],
        )  # fmt: skip
        writer.add(block)
        writer.finish(marks[unit.mark_path].skipped)
    record: Any = read_record(str(source / "extract-targets.json"))
    record["config"]["codec"] = text
    (out / "extract-targets.json").write_text(json.dumps(record | {"content": identity}))
    return out


def list_store_units(store: Path) -> list[Unit]:
    """List the units of a store that extract-targets finished."""
    record: Any = read_record(str(store / "extract-targets.json"))
    return units_of_extent(record["extent"], record["extent"]["views"])


def codec_for(text: str, tokens_TD: torch.Tensor) -> Codec:
    spec = parse_codec(text)
    return fit_codec(spec, tokens_TD) if spec.needs_fit else make_codec(text)


def decoded(store: Path, unit: Unit, mark: Mark, codec: Codec) -> torch.Tensor:
    group: Any = open_unit(str(store), unit, mark)
    return codec.decode(*read_codes(group, slice(None)))


def recoded_block(group: zarr.Group, tokens_nND: torch.Tensor, codec: Codec) -> UnitBlock:
    codes, scale = codec.encode(tokens_nND)
    prior: NDArray[Any] = values_of(group, "prior")
    if codec.spec.prior_dtype == np.uint8:
        prior = encode_prior(torch.from_numpy(prior)).numpy()
    same = {name: values_of(group, name) for name in ("box", "flip", "size", "digest")}
    return UnitBlock(
        key=[str(key) for key in values_of(group, "key")],
        codes=codes.numpy(),
        scale=None if scale is None else scale.numpy(),
        prior=prior,
        **same,
    )
