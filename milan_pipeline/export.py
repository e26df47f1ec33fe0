"""Write a trained encoder so that others load it: timm names, safetensors, a description."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from timm.models import VisionTransformer

from milan_pipeline import storage


def export_encoder(
    run: Path,
    encoder: VisionTransformer,
    arguments: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    name: str = "encoder",
) -> None:
    """Write `encoder.safetensors` and `encoder.json`, atomically.

    Args:
        run: the run folder.
        encoder: its weights are written under timm's names.
        arguments: what `timm.create_model` needs to make the architecture again.
        mean: of the pixels that it was trained on, in [0, 1].
        std: likewise.
        name: of the files, without their endings.
    """
    weights = {
        key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()
    }
    description = {"timm": dict(arguments), "mean": list(mean), "std": list(std)}
    storage.put_bytes(str(run / f"{name}.safetensors"), safetensors.torch.save(weights))
    text = json.dumps(description, indent=1) + "\n"
    storage.put_bytes(str(run / f"{name}.json"), text.encode())
