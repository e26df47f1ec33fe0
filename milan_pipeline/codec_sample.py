"""The targets that a codec is fitted to: those of the first images by the hash of their keys.

So the sample is the same for extraction and for transcoding, on any machine, whatever the order of
the work; and images that are measured can be others.

Legend: n samples, N tokens, T tokens of the sample, D target width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xxhash

from milan_pipeline.codecs import Codec
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit
from milan_pipeline.verification import read_codes

SAMPLE_IMAGES = 1024
SAMPLE_TOKENS = 65536
"""So many for each of 256 centres of k-means as it needs, and fitted in a minute or two."""


def rows_by_hash(
    keys: Mapping[str, Sequence[str]], first: int, count: int = SAMPLE_IMAGES
) -> dict[str, list[int]]:
    """Choose images in the order of the hashes of their (shard, key).

    Args:
        keys: of the samples of each image shard, by the shard's stem.
        first: how many to pass over.
        count: how many to take, or all that are left.

    Returns:
        For each shard of which any is chosen, its rows, ascending.
    """
    order = sorted(
        (xxhash.xxh3_64_intdigest(f"{stem}/{key}".encode()), stem, row)
        for stem, own in keys.items()
        for row, key in enumerate(own)
    )
    chosen: dict[str, list[int]] = {}
    for _, stem, row in order[first : first + count]:
        chosen.setdefault(stem, []).append(row)
    return {stem: sorted(rows) for stem, rows in sorted(chosen.items())}


def thinned(tokens_nND: torch.Tensor) -> torch.Tensor:
    """Return at most `SAMPLE_TOKENS` of all tokens, (T, D), drawn by a fixed seed, in order."""
    tokens_TD = tokens_nND.flatten(0, 1)
    if len(tokens_TD) <= SAMPLE_TOKENS:
        return tokens_TD
    random = np.random.Generator(np.random.PCG64(0))
    drawn = np.sort(random.choice(len(tokens_TD), SAMPLE_TOKENS, replace=False))
    return tokens_TD[torch.from_numpy(drawn)]


def stored_sample(
    url: str,
    units: Sequence[tuple[Unit, Mark]],
    codec: Codec,
    *,
    first: int = 0,
    count: int = SAMPLE_IMAGES,
) -> torch.Tensor:
    """Decode the targets (n, N, D), float32, of some images of a store, chosen by hash.

    Args:
        url: the store.
        units: finished units of one view, with their marks.
        codec: of the store.
        first: see `rows_by_hash`.
        count: likewise.

    Raises:
        DataError: an object of the store is missing or damaged.
        StorageError: the store cannot be read.
    """
    groups = {unit.shard.stem: open_unit(url, unit, mark) for unit, mark in units}
    keys = {stem: [str(key) for key in group["key"][:]] for stem, group in groups.items()}  # type: ignore[index, union-attr]
    parts = []
    for stem, rows in rows_by_hash(keys, first, count).items():
        arrays = {name: groups[stem][name] for name in ("codes", "scale") if name in groups[stem]}
        whole = slice(rows[0], rows[-1] + 1)
        codes_nNC, scale_nN = read_codes(arrays, whole)  # type: ignore[arg-type]
        taken = torch.tensor(rows) - rows[0]
        scale = None if scale_nN is None else scale_nN[taken]
        parts.append(codec.decode(codes_nNC[taken], scale))
    return torch.cat(parts)
