"""Photographs in class folders as a pool, with captions made of the names of their classes.

Such captions are labels in words. A CLIP that is trained on them has seen what a classifier has
seen, and is no CLIP of images and texts from the web.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from milan_pipeline.provenance.identity import content_hash
from workflows.demo.captions import OPENINGS, PROMPTS, SMALL, with_article
from workflows.demo.compose import SIZE
from workflows.demo.pool import Pool

NOUNS: dict[str, tuple[str, ...]] = {
    "airplane": ("airplane", "plane", "jet"),
    "automobile": ("automobile", "car"),
    "cat": ("cat", "kitten"),
    "deer": ("deer", "stag"),
    "dog": ("dog", "puppy"),
    "frog": ("frog", "toad"),
    "horse": ("horse", "pony"),
    "ship": ("ship", "boat"),
    "truck": ("truck", "lorry"),
}
"""What else a class of CIFAR-10 may be called; the first is its name."""
APART, DIGITS = 50, 12
CAPTION_CONTEXT = 12
"""Tokens of the longest caption, marks included."""
PLACES = ("outdoors", "up close", "seen from afar", "in daylight", "in the middle")


def class_names(folder: Path) -> list[str]:
    """Name the classes of a folder with a sub-folder for each, in the order of their numbers."""
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def caption(name: str, rng: np.random.Generator) -> str:
    """Describe a photograph by its class alone, in varied wording."""

    def pick(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    noun = pick(NOUNS.get(name, (name,)))
    words = [pick(OPENINGS), with_article(f"{pick(SMALL)} {noun}" if rng.random() < 0.2 else noun)]
    if rng.random() < 0.3:
        words.append(pick(PLACES))
    return " ".join(words).strip()


def vocabulary_of(names: list[str]) -> list[str]:
    """Every word that can be in a caption or prompt of these classes, sorted."""
    texts = [*OPENINGS, *PROMPTS, *SMALL, *PLACES, "a an", *names]
    texts += [noun for name in names for noun in NOUNS.get(name, ())]
    return sorted({word for text in texts for word in text.replace("{}", " ").split()})


def photo_pools(folder: Path, cache: Path, seed: int) -> tuple[Pool, Pool]:
    """Read photographs to train on, and each fiftieth to look at while training.

    Args:
        folder: a sub-folder for each class.
        cache: folder that keeps the pixels.
        seed: of the captions.
    """
    names = class_names(folder)
    photos = [(label, path) for label, name in enumerate(names)
              for path in sorted((folder / name).iterdir())
              if not path.name.startswith(".")]  # fmt: skip
    checked = photos[APART - 1 :: APART]
    trained = [photo for row, photo in enumerate(photos) if row % APART != APART - 1]
    rng = np.random.default_rng(seed)
    train, check = (
        Pool(
            _pixels([path for _, path in some], cache / f"photos-{what}-{len(some)}.npy"),
            np.array([label for label, _ in some], dtype=np.int64),
            [caption(names[label], rng) for label, _ in some],
        )
        for what, some in (("train", trained), ("check", checked))
    )
    return train, check


def _pixels(paths: list[Path], kept: Path) -> NDArray[np.uint8]:
    """Squash photographs to a scene's size, once; pixels are read from disk when needed.

    Other files, or files that have changed, are other photographs.
    """
    stats = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    digest = content_hash({"photographs": stats})[:DIGITS]
    kept = kept.with_name(f"{kept.stem}-{digest}.npy")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.empty((len(paths), 3, SIZE, SIZE), dtype=np.uint8)
        for row, path in enumerate(tqdm(paths, "photographs", disable=None)):
            with Image.open(path) as image:
                squashed = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            pixels[row] = np.asarray(squashed).transpose(2, 0, 1)
        part = kept.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, pixels)
        part.rename(kept)
    found: NDArray[np.uint8] = np.load(kept, mmap_mode="r", allow_pickle=False)
    return found
