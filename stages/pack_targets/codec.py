"""Choose the codec of target shards: the store's own, or another one that targets are encoded with.

This is separate from the options since it imports torch, which `--help` must not do.
"""

from collections.abc import Sequence
from typing import NamedTuple

from milan_pipeline import storage
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.registry import CodecSpec, parse_codec, spec_of
from milan_pipeline.core.devices import pick_device
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.provenance.identity import Identity, transcoded_identity
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.targets.codec_files import CODEC_FILE, read_shards_codec, read_store_codec
from milan_pipeline.targets.expected_identity import expected_transcoded
from milan_pipeline.targets.packed import ShardsThere
from milan_pipeline.targets.transcoding import new_codec
from milan_pipeline.targets.units import AnyMark, Unit


class Shards(NamedTuple):
    """Identity and codec of the shards: those of transcoding the store and packing the result."""

    identity: Identity
    codec: Codec


def expected_identity(config: PackTargets, source: Identity, there: ShardsThere | None) -> Identity:
    """Build the identity of the shards before a codec is fitted.

    Args:
        config: the stage's options.
        source: identity of the store.
        there: earlier shards.
    """
    spec = _other_codec(config, source)
    if spec is None:
        return source
    known = None if there is None else there.identity
    return expected_transcoded(source, spec, known)


def settle(
    config: PackTargets,
    source: Identity,
    there: ShardsThere | None,
    units: Sequence[tuple[Unit, AnyMark]],
    stop: StopRequest,
) -> Shards:
    """Read the codec of the store or of existing shards, or fit a new one.

    Args:
        config: the stage's options.
        source: identity of the store.
        there: earlier shards.
        units: the store's finished units, with their marks.
        stop: asked while a codec is fitted.

    Raises:
        DataError: a codec is missing or damaged, or cannot be fitted.
        InterruptedRunError: a stop was asked for.
    """
    own = read_store_codec(config.targets, source)
    spec = _other_codec(config, source)
    if spec is None:
        return Shards(source, own)
    if not config.on_dask:  # Dask workers have devices of their own
        pick_device(config.device)  # refuse a missing device before anything is written
    if there is not None and there.identity == expected_identity(config, source, there):
        codec = read_shards_codec(config.out, there.identity)
    else:
        codec = new_codec(config.targets, units, own, spec, stop)
    return Shards(transcoded_identity(source, codec.parameters()), codec)


def has_codec(folder: str, identity: Identity) -> bool:
    """Tell whether a folder has the codec that its shards need."""
    needs_file = spec_of(identity["codec"]).needs_fit
    return not needs_file or storage.exists(storage.join(folder, CODEC_FILE))


def _other_codec(config: PackTargets, source: Identity) -> CodecSpec | None:
    """Return the codec of the options; None if it is the store's own."""
    if config.codec is None:
        return None
    spec = parse_codec(config.codec).for_width(source["teacher"]["width"])
    return None if spec.asks_for(spec_of(source["codec"])) else spec
