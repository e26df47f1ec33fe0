"""PHI-S beside target shards: which is there and still holds, and whether one is to be fitted.

This is separate from the options since it imports torch, which `--help` must not do.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.pretraining.phi_s_file import (
    PHI_S,
    has_file,
    sample_hash,
    stated_phi_s,
    write_phi_s,
)
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.packed import ShardsThere
from milan_pipeline.targets.shard_records import layout_of
from milan_pipeline.targets.units import AnyMark, Unit

Units = Iterable[tuple[Unit, AnyMark]]


def known_phi_s(
    folder: str, there: ShardsThere | None, identity: Identity, units: Units
) -> dict[str, Any]:
    """Return what the manifest of shards says of PHI-S, as far as it holds for these units.

    It does not hold where its file is missing or damaged.

    Args:
        folder: of the shards.
        there: the shards that are there.
        identity: of the shards as they will be.
        units: of their store, with their marks.
    """
    if there is None:
        return {}
    stated = stated_phi_s(there.common, folder)
    holds = (
        stated is not None
        and stated["sample"] == sample_hash(identity, units)
        and has_file(folder, stated)
    )
    return {PHI_S: dict(there.common[PHI_S])} if holds else {}


def has_phi_s(
    config: PackTargets, there: ShardsThere | None, identity: Identity, units: Units
) -> bool:
    """Tell whether no PHI-S is asked for that is not there."""
    return not config.phi_s or bool(known_phi_s(config.out, there, identity, units))


def settled_phi_s(
    config: PackTargets,
    source: Identity,
    there: ShardsThere | None,
    identity: Identity,
    *,
    codec: Codec,
    units: Sequence[tuple[Unit, AnyMark]],
    stop: StopRequest,
) -> dict[str, Any]:
    """Return what the manifest is to say of PHI-S, which is fitted if it is asked for.

    With --phi-s and --overwrite it is fitted anew.

    Raises:
        ConfigError: it cannot be fitted to targets of this width.
        DataError: there are no targets to fit it to, or some are damaged or not finite.
        InterruptedRunError: a stop was asked for.
    """
    known = known_phi_s(config.out, there, identity, units)
    if known or not config.phi_s:
        return known
    own = read_store_codec(config.targets, source)
    sample = sample_hash(identity, units)
    return {
        PHI_S: write_phi_s(
            config.out,
            store=config.targets,
            units=units,
            source=own,
            target=codec,
            patches=layout_of(identity).patches,
            sample=sample,
            stop=stop,
        )
    }
