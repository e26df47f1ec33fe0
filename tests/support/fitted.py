"""Fitted codecs for tests: small, of tokens with a spectrum, made once.

A small store of targets of a fitted codec, and its shards.
"""

import functools
from pathlib import Path

import numpy as np
import torch

from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.interface import Codec, encode_prior
from milan_pipeline.codecs.joint import JointCodec
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.images.decode import digest
from milan_pipeline.provenance.identity import build_identity, content_hash
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.sequential import iterate_shard
from milan_pipeline.targets.codec_files import write_shards_codec
from milan_pipeline.targets.layout import UnitBlock
from milan_pipeline.targets.shard_records import layout_of, write_target_shard
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import Unit, target_shard_name
from milan_pipeline.targets.writer import UnitWriter
from tests.support.extraction import SIDE, SIZE, WIDTH, job_on

TOKEN_WIDTH = 12
TOKENS = 10
FITTED = ("joint:bytes=4", "joint:bytes=1.2")


def tokens(count: int, *, seed: int = 0, width: int = TOKEN_WIDTH) -> torch.Tensor:
    """Draw tokens (count, D) in three clusters, whose components fall off."""
    random = torch.Generator().manual_seed(seed)
    spread_D = torch.arange(1, width + 1) ** -1.0
    centre_3D = 2 * torch.randn(3, width, generator=torch.Generator().manual_seed(99))
    cluster = torch.randint(3, (count,), generator=random)
    return centre_3D[cluster] + spread_D * torch.randn(count, width, generator=random)


@functools.cache
def fitted(text: str, count: int = TOKENS) -> JointCodec:
    """Fit a codec to 60 images of so many tokens."""
    tokens_nND = tokens(60 * count).reshape(60, count, TOKEN_WIDTH)
    return fit_codec(parse_codec(text), tokens_nND)


def sample(images: int, *, seed: int = 0) -> torch.Tensor:
    """Draw the tokens (n, 10, D) of some images."""
    return tokens(TOKENS * images, seed=seed).reshape(images, TOKENS, TOKEN_WIDTH)


IMAGES = 13


def write_fitted(folder: Path, codec: str) -> tuple[Codec, UnitBlock, tuple[Path, Path]]:
    """Write made-up targets of a few images, one view; views are of `SIZE` pixels.

    Returns:
        The codec, what is stored, and the folders of images and target shards.
    """
    job, targets = job_on(folder, [IMAGES]), folder / "targets"
    job.manifest.save()
    (unit,) = list_units(job.manifest, 1)
    random = torch.manual_seed(0)
    tokens_nND = torch.randn(IMAGES, 1 + SIDE**2, WIDTH, generator=random)
    fitted = fit_codec(parse_codec(codec), tokens_nND)
    prior_nL = torch.rand(IMAGES, SIDE**2, generator=random)
    block = _block_of(job.manifest, unit, fitted.encode(tokens_nND).codes_nNC, prior_nL)
    identity = build_identity(
        teacher={"grid": [SIDE, SIDE], "width": WIDTH},
        preprocessing={},
        view_policy={},
        codec=fitted.parameters(),
    )
    known, shape = content_hash(identity), block.codes.shape[1:]
    writer = UnitWriter(job.store, unit, identity_hash=known, codec=fitted, shape=shape)
    writer.add(block)
    shard = write_target_shard(
        str(targets),
        target_shard_name(unit),
        store=job.store,
        unit=unit,
        mark=writer.finish([]),
        layout=layout_of(identity),
        identity_hash=known,
    )
    write_shards_codec(str(targets), fitted)
    common = {"identity": identity, "identity_hash": known}
    Manifest(kind="targets", folder=str(targets), shards=(shard,), common=common).save()
    return fitted, block, (folder / "images", targets)


def _block_of(
    manifest: Manifest, unit: Unit, codes_nNC: torch.Tensor, prior_nL: torch.Tensor
) -> UnitBlock:
    images = list(iterate_shard(manifest, unit.shard))
    return UnitBlock(
        key=[image.key for image in images],
        codes=codes_nNC.numpy(),
        scale=None,
        prior=encode_prior(prior_nL).numpy(),
        box=np.tile(np.array([0, 1, SIZE, SIZE + 2], np.float32), (IMAGES, 1)),
        flip=np.arange(IMAGES) % 2 == 0,
        size=np.tile(np.array([20, 24], np.int32), (IMAGES, 1)),
        digest=np.array([digest(image.members["jpg"]) for image in images], np.uint64),
    )
