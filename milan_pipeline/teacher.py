"""CLIP image tower -> (targets, prior). The only module that imports open_clip.

Legend: B batch, N = 1 + L tokens (CLS first), L patches row-major, W tower width, D target width,
H heads, d = W / H.
"""

import hashlib
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher_spec import TeacherSpec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TeacherShape(NamedTuple):
    """What can be known of a tower without its weights: input pixels, token grid, target width."""

    image_size: int
    grid: tuple[int, int]
    width: int


def describe_teacher(spec: TeacherSpec) -> TeacherShape:
    """Read a tower's shape from its configuration alone.

    Raises:
        ConfigError: open_clip knows no such model, or it is not a plain ViT.
    """
    config = _model_config(spec.name)
    try:
        vision = config["vision_cfg"]
        size, patch = vision.get("image_size", 224), vision["patch_size"]
        return TeacherShape(size, (size // patch, size // patch), config["embed_dim"])
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"--teacher {spec.name!r} is no plain square ViT; choose a ViT-* model with a CLS token"
        ) from error


class Teacher:
    """A frozen CLIP image tower with CLS token and attention blocks."""

    def __init__(
        self, visual: VisionTransformer, spec: TeacherSpec, *, device: str = "cpu"
    ) -> None:
        """Take over a tower, whose weights are cast to the precision asked for.

        Raises:
            ConfigError: it has no CLS token over plain attention blocks, or its input is no square.
        """
        _require_supported(visual, spec.name)
        height, width = visual.image_size
        if height != width:
            raise ConfigError(
                f"--teacher {spec.name!r} takes {height}x{width} pixels; choose a square one"
            )
        self.spec = spec
        self.image_size = int(height)
        self.grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
        self.width = int(visual.proj.shape[1])
        self.mean = [float(value) for value in visual.preprocess_cfg["mean"]]
        self.std = [float(value) for value in visual.preprocess_cfg["std"]]
        self.weights_sha256 = _weights_sha256(visual)
        # The weights do not tell these two, which a local folder's configuration may change.
        last: Any = visual.transformer.resblocks[-1]
        self.heads = int(last.attn.num_heads)
        self.activation = type(last.mlp.gelu).__name__
        self._dtype = DTYPES[spec.precision]
        self._device = torch.device(device)
        self._visual = visual.eval().requires_grad_(requires_grad=False)
        self._visual.to(device=self._device, dtype=self._dtype)

    @classmethod
    def load(cls, spec: TeacherSpec, *, device: str = "cpu") -> "Teacher":
        """Load an open_clip model and keep its image tower.

        Args:
            spec: which one, and what is asked of it.
            device: where the tower runs.

        Raises:
            ConfigError: the model or its weights cannot be had, or it has no CLS token.
        """
        try:
            model = open_clip.create_model(
                spec.name,
                pretrained=spec.pretrained,
                require_pretrained=True,
                pretrained_text=False,
                force_quick_gelu=_needs_quick_gelu(spec.name, spec.pretrained),
            )
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"--teacher {spec.name!r} with --pretrained {spec.pretrained!r} cannot be loaded "
                f"({reason}); check the name, the tag and that the weights are there"
            ) from error
        return cls(model.visual, spec, device=device)

    @property
    def device(self) -> torch.device:
        """Where the tower runs."""
        return self._device

    def identity(self) -> dict[str, Any]:
        """Return the teacher's part of the identity."""
        return {
            "name": self.spec.name_in_identity,
            "pretrained": self.spec.tag_in_identity,
            "weights_sha256": self.weights_sha256,
            "heads": self.heads,
            "activation": self.activation,
            "precision": self.spec.precision,
            "grid": list(self.grid),
            "width": self.width,
        }

    def preprocessing(self) -> dict[str, Any]:
        """Return the identity's part on what the tower is given."""
        return {
            "pixels": "pillow-rgb, bicubic antialiased, uint8",
            "size": self.image_size,
            "mean": self.mean,
            "std": self.std,
        }

    @torch.no_grad()  # not inference_mode: on the CPU it slows bfloat16 down several times
    def __call__(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute targets and priors (MILAN, arXiv 2208.06049, sections 3.1 and 3.3).

        Args:
            pixels_BCHW: uint8 views of the tower's input size.

        Returns:
            targets_BND: float32, `ln_post` then `@ proj` on all tokens.
            prior_BL: float32, the last block's softmaxed CLS row, head mean, without CLS column.
        """
        visual = self._visual
        captured: dict[str, torch.Tensor] = {}

        def keep_input(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            captured["last_input"] = args[0]

        def keep_output(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            captured["tokens"] = output

        hooks = [
            visual.transformer.resblocks[-1].register_forward_pre_hook(keep_input),
            visual.transformer.register_forward_hook(keep_output),
        ]
        try:
            visual(self.normalise(pixels_BCHW))
        finally:
            for hook in hooks:
                hook.remove()
        last_BNW = captured["last_input"]
        if not visual.transformer.batch_first:
            last_BNW = last_BNW.transpose(0, 1)
        targets_BND = visual.ln_post(captured["tokens"]) @ visual.proj
        return targets_BND.float(), _cls_attention(visual.transformer.resblocks[-1], last_BNW)

    def normalise(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels into the tower's input type, with the tower's own mean and std."""
        pixels = pixels_BCHW.to(self._device).float().div_(255)
        mean = torch.tensor(self.mean, device=self._device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=self._device).view(1, 3, 1, 1)
        return ((pixels - mean) / std).to(self._dtype)


def _model_config(name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] | None = open_clip.get_model_config(name)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--teacher {name!r} has no readable configuration ({reason}); check the name"
        ) from error
    if config is None:
        raise ConfigError(
            f"--teacher {name!r} is no open_clip model; see open_clip.list_models(), or give "
            "hf-hub:ORG/REPO or local-dir:PATH"
        )
    return config


def _needs_quick_gelu(name: str, pretrained: str | None) -> bool:
    """Tell whether the weights of a tag were trained with QuickGELU, as OpenAI's were.

    open_clip only warns where the model of that name has the other activation (`ViT-B-16` with
    `openai`), and would compute wrong features.

    Raises:
        ConfigError: the name asks for QuickGELU and the tag's weights were trained without.
    """
    tag = get_pretrained_cfg(name, pretrained) if pretrained and ":" not in name else {}
    trained_with = bool(tag.get("quick_gelu", False))
    if tag and not trained_with and _model_config(name).get("quick_gelu", False):
        raise ConfigError(
            f"--teacher {name!r} has QuickGELU, which the weights of --pretrained {pretrained!r} "
            "were trained without; leave -quickgelu away"
        )
    return trained_with


def _cls_attention(block: nn.Module, x_BNW: torch.Tensor) -> torch.Tensor:
    """Compute only the CLS row of a block's attention: (B, L) float32, averaged over heads."""
    attention: Any = block.attn
    normed_BNW = block.ln_1(x_BNW)  # type: ignore[operator]
    width, heads = attention.embed_dim, attention.num_heads
    weight_q, weight_k, _ = attention.in_proj_weight.split(width)
    bias_q, bias_k, _ = attention.in_proj_bias.split(width)
    q_BW = F.linear(normed_BNW[:, 0], weight_q, bias_q)
    k_BNW = F.linear(normed_BNW, weight_k, bias_k)
    q_BHd = q_BW.view(len(q_BW), heads, -1)
    k_BNHd = k_BNW.view(*k_BNW.shape[:2], heads, -1)
    products_BHN: torch.Tensor = torch.einsum("bhd,bnhd->bhn", q_BHd, k_BNHd)
    logits_BHN = products_BHN.float() / (width // heads) ** 0.5
    rows_BN: torch.Tensor = logits_BHN.softmax(dim=-1).mean(dim=1)
    return rows_BN[:, 1:]


def _require_supported(visual: nn.Module, name: str) -> None:
    supported = (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.proj is not None
        and not visual.final_ln_after_pool
        and isinstance(
            getattr(visual.transformer.resblocks[-1], "attn", None), nn.MultiheadAttention
        )
    )
    if not supported:
        raise ConfigError(
            f"--teacher {name!r} has no CLS token over plain attention blocks "
            f"({type(visual).__name__}); choose a native open_clip ViT such as ViT-B-16"
        )


def _weights_sha256(visual: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(visual.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
