"""The demo's small CLIP: its configuration, and how it is saved and loaded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file

from workflows.demo.captions import vocabulary
from workflows.demo.pool import VIEW
from workflows.demo.tokenizer import WordTokenizer

FOLDER = Path(__file__).parent / "teacher"
WEIGHTS = "open_clip_model.safetensors"
CONTEXT = 24
MEAN, STD = (0.65, 0.58, 0.51), (0.29, 0.26, 0.28)
"""Of the scenes' pixels, in 0..1."""


def configuration(words: Sequence[str] | None = None, context: int = CONTEXT) -> dict[str, Any]:
    """The content of open_clip_config.json.

    Args:
        words: of another vocabulary than the scenes'.
        context: tokens of a text, marks included.
    """
    tokenizer = WordTokenizer(vocabulary() if words is None else words, context)
    vision = {"image_size": VIEW, "patch_size": 8, "width": 128, "layers": 6, "head_width": 32}
    text = {
        "context_length": context,
        "vocab_size": tokenizer.vocab_size,
        "width": 128,
        "heads": 4,
        "layers": 2,
    }
    return {
        "model_cfg": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {
            "size": VIEW,
            "mean": MEAN,
            "std": STD,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def new_model(words: Sequence[str] | None = None, context: int = CONTEXT) -> CLIP:
    """An untrained model."""
    return CLIP(**configuration(words, context)["model_cfg"])


def take_image_tower(model: CLIP, folder: Path) -> None:
    """Put the image tower of a saved model in place of a model's own."""
    prefix = "visual."
    weights = load_file(folder / WEIGHTS)
    tower = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    model.visual.load_state_dict(tower)


def save_model(
    model: CLIP,
    folder: Path,
    words: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write configuration, vocabulary and weights of a type, so that `load_model` finds them."""
    words = vocabulary() if words is None else words
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(configuration(words, model.context_length), indent=1) + "\n"
    (folder / "open_clip_config.json").write_text(config, encoding="utf-8")
    (folder / "vocabulary.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    weights = {n: tensor.to(dtype).contiguous() for n, tensor in model.state_dict().items()}
    part = folder / "weights.part"
    save_file(weights, part)
    part.replace(folder / WEIGHTS)


def load_model(folder: Path = FOLDER) -> tuple[CLIP, WordTokenizer]:
    """The trained model in evaluation mode, and its tokenizer."""
    model = open_clip.create_model(f"local-dir:{folder}")
    tokenizer = WordTokenizer.from_file(folder / "vocabulary.txt", model.context_length)
    return model.eval(), tokenizer


def normalise(views: torch.Tensor) -> torch.Tensor:
    """(n, 3, VIEW, VIEW) uint8 to what the image tower expects, float32."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (views / 255 - mean[:, None, None]) / std[:, None, None]
