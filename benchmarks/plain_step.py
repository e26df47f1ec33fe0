"""The published training step, with the teacher in the loop, to compare ours with.

Written from the paper (MILAN, arXiv 2208.06049): in every step CLIP computes, from the full view,
targets and the attention that the mask is drawn by; the student is `plain_milan`; AdamW is
torch's own choice of kernel. Reading and cropping go through our pixel path, which is faster than
the usual one: this compares steps only, and `benchmarks.stream` compares readers.

Legend: B batch, L patches, N = 1 + L tokens, E teacher width, D target width.
"""

import contextlib
from collections.abc import Iterator

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_milan import PlainMilan, plain_loss
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import random_resized_crop
from milan_pipeline.training.optim import PRETRAINING_BETAS

IMAGE_SIZE, PATCH_SIZE = 224, 16
GRID = IMAGE_SIZE // PATCH_SIZE
KEPT = GRID * GRID // 4
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainTeacher(nn.Module):
    """A native CLIP image tower with random weights: targets of all tokens, and the mask prior."""

    def __init__(self, name: str, image_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        model = open_clip.create_model(
            name, force_image_size=image_size, precision="fp32", load_weights=False
        )
        self.tower = model.visual.to(dtype).eval()
        self.image_size = image_size
        self.dtype = dtype

    @property
    def width(self) -> int:
        """Channels of a target."""
        return int(self.tower.proj.shape[1])

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return float targets (B, N, D) and the CLS token's attention to the patches (B, L)."""
        tower = self.tower
        if images_BCHW.shape[-1] != self.image_size:
            images_BCHW = F.interpolate(images_BCHW, self.image_size, mode="bicubic")
        patches_BLE = tower.conv1(images_BCHW.to(self.dtype)).flatten(2).transpose(1, 2)
        cls_B1E = tower.class_embedding.expand(len(patches_BLE), 1, -1)
        x_BNE = torch.cat([cls_B1E, patches_BLE], dim=1) + tower.positional_embedding
        x_BNE = tower.ln_pre(x_BNE)
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            x_BNE = block(x_BNE)
        normed_BNE = last.ln_1(x_BNE)
        mixed_BNE, weights_BNN = last.attn(normed_BNE, normed_BNE, normed_BNE, need_weights=True)
        x_BNE = x_BNE + mixed_BNE
        x_BNE = x_BNE + last.mlp(last.ln_2(x_BNE))
        return (tower.ln_post(x_BNE) @ tower.proj).float(), weights_BNN[:, 0, 1:].float()


class PlainStep:
    """The published step, alone (targets given) and whole (pixels read, teacher run)."""

    def __init__(
        self, *, jpegs: list[bytes], batch: int, teacher: str, teacher_size: int, bf16: bool
    ) -> None:
        torch.manual_seed(0)
        weights = torch.bfloat16 if bf16 else torch.float32
        self._teacher = PlainTeacher(teacher, teacher_size, weights)
        self._student = PlainMilan(
            image_size=(IMAGE_SIZE, IMAGE_SIZE),
            patch_size=PATCH_SIZE,
            target_width=self._teacher.width,
        )
        trained = [p for p in self._student.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(groups, lr=1e-5, betas=PRETRAINING_BETAS)
        self._bf16 = bf16
        self._batch = batch
        self._jpegs = _endless(jpegs)
        self._images_BCHW = self._read()
        self._targets_BND = torch.randn(batch, 1 + GRID * GRID, self._teacher.width)
        self._prior_BL = torch.rand(batch, GRID * GRID)

    def student(self) -> None:
        """Take the student's step with targets that were computed before."""
        self._train(self._images_BCHW, self._targets_BND, self._prior_BL)

    def whole(self) -> None:
        """Read views, run the teacher, take the student's step."""
        images_BCHW = self._read()
        self._train(images_BCHW, *self._teacher(images_BCHW))

    def teacher(self) -> None:
        """Run the teacher alone."""
        self._teacher(self._images_BCHW)

    def _read(self) -> Tensor:
        mean = torch.tensor(PIXEL_MEAN).view(3, 1, 1)
        std = torch.tensor(PIXEL_STD).view(3, 1, 1)
        views = []
        for number in range(self._batch):
            pixels = decode_rgb(next(self._jpegs))
            height, width, _ = pixels.shape
            box = random_resized_crop(height, width, seed=0, key=str(number), view=0)
            views.append((view_pixels(pixels, box, IMAGE_SIZE) / 255 - mean) / std)
        return torch.stack(views)

    def _train(self, images_BCHW: Tensor, targets_BND: Tensor, prior_BL: Tensor) -> None:
        order_BL = torch.multinomial(prior_BL, prior_BL.shape[1])
        kept_BK, masked_BM = order_BL[:, :KEPT], order_BL[:, KEPT:]
        self._optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if self._bf16 else contextlib.nullcontext():
            pred_BND = self._student(images_BCHW, kept_BK, masked_BM)
        plain_loss(pred_BND, targets_BND).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()


def _endless(jpegs: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from jpegs
