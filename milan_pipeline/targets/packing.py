"""Pack a target store into target shards, unit by unit, in any process."""

import dataclasses

from milan_pipeline.cluster.work import Work
from milan_pipeline.core.devices import device_of_process
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.provenance.identity import require_hash, stated_identity
from milan_pipeline.shards.manifest import Shard, load_manifest
from milan_pipeline.targets.codec_files import read_shards_codec, read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.shard_records import Recode, RecordLayout, layout_of, write_target_shard
from milan_pipeline.targets.transcoding import Recoder
from milan_pipeline.targets.units import AnyMark, Unit, target_shard_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingSpec:
    """Which store is packed into which folder of shards.

    Attributes:
        store: URL of the store.
        store_hash: hash of its identity.
        folder: URL of the shards; their codec and a manifest that names their identity are there.
        folder_hash: hash of the shards' identity.
        device: where targets are decoded and encoded if the codecs differ, or "auto".
    """

    store: str
    store_hash: str
    folder: str
    folder_hash: str
    device: str

    def begin(self, number: int | None) -> "Packing":
        """Read the identities and, if targets must be encoded again, both codecs.

        Raises:
            DataError: a codec is missing or damaged.
            MissingDataError: the folder has no manifest.
            MismatchError: the store or the folder has another identity than this says.
            StorageError: the store or folder cannot be read.
        """
        source = read_identity(self.store)
        require_hash(source, self.store_hash, what=self.store)
        manifest = load_manifest(self.folder, kind="targets", allow_unfinished=True)
        identity = stated_identity(manifest.common, what=self.folder)
        require_hash(identity, self.folder_hash, what=self.folder)
        recode = None
        if self.folder_hash != self.store_hash:
            recode = Recoder(
                source=read_store_codec(self.store, source),
                target=read_shards_codec(self.folder, identity),
                device=device_of_process(self.device, number=number),
            )
        return Packing(self, layout_of(identity), recode)


class Packing(Work[tuple[Unit, AnyMark], Shard]):
    """Packs units, each given with its mark; the caller lists the shards that it returns."""

    def __init__(self, spec: PackingSpec, layout: RecordLayout, recode: Recode | None) -> None:
        self._spec = spec
        self._layout = layout
        self._recode = recode

    def do(self, item: tuple[Unit, AnyMark], stop: StopRequest) -> Shard:
        """Write one unit's shard and index. This takes little time: a stop does not interrupt it.

        Raises:
            DataError: the unit is damaged, or cannot be encoded.
            MismatchError: the unit was written over since it was listed.
            StorageError: the store cannot be read or the folder written.
        """
        del stop
        unit, mark = item
        return write_target_shard(
            self._spec.folder,
            target_shard_name(unit),
            store=self._spec.store,
            unit=unit,
            mark=mark,
            layout=self._layout,
            identity_hash=self._spec.folder_hash,
            recode=self._recode,
        )
