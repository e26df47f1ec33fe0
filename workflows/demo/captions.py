"""English captions for scenes: the main object first, in varied wording."""

import numpy as np

from workflows.demo.layout import Layout, Thing
from workflows.demo.paint import PALETTE, TEXTURES
from workflows.demo.shapes import CLASSES

NOUNS: dict[str, tuple[str, ...]] = {name: (name,) for name in CLASSES} | {
    "boat": ("boat", "sailboat", "ship"),
    "cup": ("cup", "mug"),
    "house": ("house", "cottage"),
    "moon": ("moon", "crescent"),
    "mushroom": ("mushroom", "toadstool"),
    "tree": ("tree", "pine"),
    "umbrella": ("umbrella", "parasol"),
}
"""What a class may be called; the first is the usual word."""

OPENINGS = (
    "", "a photo of", "a picture of", "an image of", "a drawing of", "here is", "this is",
    "we see", "you can see", "look at", "there is",
)  # fmt: skip
JOINTS = ("with", "next to", "and", "beside", "near", "close to", "together with")
SIZES = ("large", "big")
SMALL = ("small", "little", "tiny")
BACKDROPS = ("on a {} background", "in front of a {} background", "against a {} wall")

PROMPTS = (
    "a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}", "here is {}", "{}",
)  # fmt: skip
"""Zero-shot wordings for a bare noun with its article."""


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def with_article(words: str) -> str:
    """'star' -> 'a star', 'orange fish' -> 'an orange fish'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _phrase(thing: Thing, sizes: tuple[str, ...], detail: float, rng: np.random.Generator) -> str:
    """A noun with its article and attributes, each of them with probability `detail` or less."""
    words = []
    if rng.random() < detail / 2:
        words.append(_pick(sizes, rng))
    if rng.random() < detail / 2:
        words.append(thing.texture)
    if rng.random() < detail:
        words.append(thing.colour)
    usual, *rare = NOUNS[thing.name]
    words.append(_pick(tuple(rare), rng) if rare and rng.random() < 0.15 else usual)
    return with_article(" ".join(words))


def caption(layout: Layout, rng: np.random.Generator) -> str:
    """Describe a scene: always its main object, often the others, sometimes the background."""
    words = [_pick(OPENINGS, rng), _phrase(layout.main, SIZES, 0.3, rng)]
    if layout.others and rng.random() < 0.6:
        others = [_phrase(thing, SMALL, 0.15, rng) for thing in layout.others]
        words += [_pick(JOINTS, rng), " and ".join(others)]
    if rng.random() < 0.2:
        look = layout.backdrop if rng.random() < 0.5 else layout.backdrop_colours[0]
        words.append(_pick(BACKDROPS, rng).format(look))
    return " ".join(words).strip()


def vocabulary() -> list[str]:
    """Every word that can be in a caption or prompt, sorted."""
    texts = [*OPENINGS, *JOINTS, *SIZES, *SMALL, *BACKDROPS, *PROMPTS, *PALETTE, *TEXTURES]
    texts += [noun for nouns in NOUNS.values() for noun in nouns] + ["a an and"]
    return sorted({word for text in texts for word in text.replace("{}", " ").split()})
