"""Photographs for the demo's CLIP: captions of class names, and which ones are held apart."""

import json
from pathlib import Path

import numpy as np
import torch
from open_clip.transformer import PatchDropout
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_hook

from tests.support.pictures import write_picture
from workflows.demo.compose import SIZE
from workflows.demo.model import FOLDER, WEIGHTS, configuration, load_model
from workflows.demo.photos import (
    APART,
    CAPTION_CONTEXT,
    NOUNS,
    caption,
    photo_pools,
    vocabulary_of,
)
from workflows.demo.tokenizer import WordTokenizer
from workflows.demo.train_clip import main


def test_captions_name_the_class_alone_in_words_that_are_known() -> None:
    rng, names = np.random.default_rng(0), [*NOUNS, "bird"]
    tokenizer = WordTokenizer(words := vocabulary_of(names), CAPTION_CONTEXT)
    for name in names:
        texts = {caption(name, rng) for _ in range(60)}
        assert len(texts) > 20
        others = {noun for other in names if other != name for noun in NOUNS.get(other, (other,))}
        for text in texts:
            assert set(text.split()) & set(NOUNS.get(name, (name,)))
            assert not set(text.split()) & others
            assert len(text.split()) + 2 <= CAPTION_CONTEXT
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


def test_a_clip_of_photographs_starts_from_a_tower_and_is_saved_in_float16(tmp_path: Path) -> None:
    """One step, at a hundredth of the rate: the tower is still near the one it started from."""
    for number in range(4 * APART):
        place = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:03}.jpg"
        write_picture(place, number)
    out, tokens = tmp_path / "clip", []

    def look(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        if isinstance(module, PatchDropout):
            tokens.append(output.shape[1])

    with register_module_forward_hook(look):
        main(
            f"--photos {tmp_path}/photos --cache {tmp_path} --out {out} --init {FOLDER} "
            "--patch-dropout 0.75 --float16 --minutes 1e-9".split()
        )
    assert tokens == [1 + 64 // 4, 1 + 64]  # of the step, and of the check
    found, start = load_file(out / WEIGHTS), load_file(FOLDER / WEIGHTS)
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    assert 0 < (found[name].float() - start[name]).abs().max() < 1e-3
    model, tokenizer = load_model(out)
    assert tokenizer.knows("kitten")
    assert model.context_length == CAPTION_CONTEXT
    record = json.loads((out / "training.json").read_text())
    assert record["spent"]["steps"] == 1
    assert record["recipe"]["patch_dropout"] == 0.75
