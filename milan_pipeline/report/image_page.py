"""The page of image shards: facts, and some of the images."""

import numpy as np
import torch
from torch.nn import functional as F

from milan_pipeline import storage
from milan_pipeline.errors import BadImageError
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.report.facts import Facts, text_of
from milan_pipeline.report.gallery import jpeg_uri
from milan_pipeline.report.page import Page, shown
from milan_pipeline.report.target_rows import draw_samples
from milan_pipeline.shards.manifest import load_manifest

SIDE = 176


def image_page(url: str, facts: Facts, *, gallery: int, seed: int) -> Page:
    """Make the page of a folder of image shards.

    Args:
        url: the folder.
        facts: of it.
        gallery: images to show.
        seed: of which.

    Raises:
        DataError: an index or an image's bytes are damaged.
    """
    pictures, bad = _pictures(url, gallery, seed)
    unreadable = f" {bad} of those cannot be decoded and are left out." if bad else ""
    return Page(
        title=storage.basename(url.rstrip("/")),
        kind="image shards",
        state=str(facts["image shards"]["state"]),
        paths=[url],
        highlights=[
            ("images", text_of("", facts["counts"]["images"])),
            ("shards", text_of("", facts["counts"]["shards"])),
            ("in all", text_of("bytes", facts["sizes"]["all_shards_bytes"])),
            ("an image, about", text_of("bytes", facts["sizes"]["one_image_about_bytes"])),
        ],
        facts=shown(facts),
        notes=[f"{gallery} images at most were drawn by the seed {seed}.{unreadable}"],
        pictures=pictures,
    )


def _pictures(url: str, count: int, seed: int) -> tuple[list[tuple[str, str]], int]:
    """Return keys and data URIs of some images, and how many could not be decoded."""
    manifest = load_manifest(url, kind="images", allow_unfinished=True)
    generator = np.random.Generator(np.random.PCG64(seed))
    pictures, bad = [], 0
    for _, keys, data in draw_samples(manifest, count, generator):
        for key, image in zip(keys, data, strict=True):
            try:
                pictures.append((key, jpeg_uri(_square(decode_rgb(image)))))
            except BadImageError:
                bad += 1
    return pictures, bad


def _square(rgb_HWC: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(rgb_HWC.copy()).permute(2, 0, 1)[None]
    square = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(square.permute(1, 2, 0).numpy())
