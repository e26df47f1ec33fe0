"""Photographs for the demo's CLIP: captions of class names, and which ones are held apart."""

from pathlib import Path

import numpy as np

from tests.support.pictures import write_picture
from workflows.demo.compose import SIZE
from workflows.demo.model import CONTEXT, configuration
from workflows.demo.photos import APART, NOUNS, caption, photo_pools, vocabulary_of
from workflows.demo.tokenizer import WordTokenizer


def test_captions_name_the_class_alone_in_words_that_are_known() -> None:
    rng, names = np.random.default_rng(0), [*NOUNS, "bird"]
    tokenizer = WordTokenizer(words := vocabulary_of(names), CONTEXT)
    for name in names:
        texts = {caption(name, rng) for _ in range(60)}
        assert len(texts) > 20
        others = {noun for other in names if other != name for noun in NOUNS.get(other, (other,))}
        for text in texts:
            assert set(text.split()) & set(NOUNS.get(name, (name,)))
            assert not set(text.split()) & others
            assert all(tokenizer.knows(word) for word in text.split())
    assert configuration(words)["model_cfg"]["text_cfg"]["vocab_size"] == tokenizer.vocab_size


def test_each_fiftieth_photograph_is_held_apart_and_pixels_are_kept(tmp_path: Path) -> None:
    for number in range(APART):
        write_picture(tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.jpg", number)
    train, check = photo_pools(tmp_path / "photos", tmp_path / "cache", 0)
    assert train.pixels.shape == (APART - 1, 3, SIZE, SIZE)
    assert (train.labels.tolist(), check.labels.tolist()) == ([0] * 25 + [1] * 24, [1])
    kept = sorted((tmp_path / "cache").iterdir())
    before = [path.stat().st_mtime_ns for path in kept]
    again, _ = photo_pools(tmp_path / "photos", tmp_path / "cache", 0)
    assert again.captions == train.captions
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_pixels_of_other_photographs_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    for folder, first in (("one", 0), ("other", 99)):
        for number in range(APART):
            place = tmp_path / folder / "cat" / f"{number:02}.jpg"
            write_picture(place, first + number)
        (tmp_path / folder / "cat" / ".DS_Store").write_bytes(b"no picture")
    one, other = (
        photo_pools(tmp_path / folder, tmp_path / "cache", 0)[0] for folder in ("one", "other")
    )
    assert not np.array_equal(one.pixels, other.pixels)
