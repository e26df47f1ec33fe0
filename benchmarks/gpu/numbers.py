"""The device computes what the CPU does, within tolerances: teachers, codecs, a student's step.

Where a type is only rounded to, bytes must be equal; sums are taken in another order, and where a
value lies between two codes, the nearer one may differ.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import example_batch, pretraining
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.interface import Codec, encode_prior
from milan_pipeline.codecs.registry import LEVELS, PLAIN, parse_codec
from milan_pipeline.training.meter import named

LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.99, "fp16": 0.999}
"""Of any token's target to that of the CPU in fp32."""
EQUAL_CODES = 0.999
"""Least share of codes that are the CPU's, of codecs that look for the nearest."""
IMAGES, WIDTH, TOKENS = 4, 512, 400
GRID_TOKENS, LEAST_IMAGES = 10, 32
LOSS_WITHIN = {"fp32": 1e-4, "bf16": 2e-2}


def teachers(setting: Setting, known: Figures, found: Findings) -> None:
    """Compare targets and priors of ViT-B/16 in each precision with the CPU's in fp32."""
    del known
    on_cpu = Setting(device_name="cpu", tiny=setting.tiny)
    reference = on_cpu.teacher("B/16", "fp32")
    side = reference.image_size
    random = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=random)
    wanted, wanted_prior = reference(views)
    for precision, least in LEAST_COSINE.items():
        with found.going_on(f"teacher {precision}"):
            targets, prior = setting.teacher("B/16", precision)(views.to(setting.device))
            cosine = F.cosine_similarity(targets.cpu(), wanted, dim=-1).min()
            found.check(f"teacher {precision}: least cosine", float(cosine), least=least)
            if precision == "fp32":
                apart = (prior.cpu() / wanted_prior - 1).abs().max()
                found.check("prior fp32: largest relative deviation", float(apart), most=1e-3)


def codecs(setting: Setting, known: Figures, found: Findings) -> None:
    """Compare codes and decoded targets of every codec with the CPU's."""
    del known
    width = setting.of(WIDTH, 32)
    tokens = _tokens(width, GRID_TOKENS)
    for name in (*PLAIN, *LEVELS):
        with found.going_on(name):
            codec = codec_of(name, width, GRID_TOKENS)
            codes, scale = codec.encode(tokens)
            there, _ = codec.encode(tokens.to(setting.device))
            exact = name in ("float16", "bfloat16")
            share = (there.cpu() == codes).float().mean()
            found.check(
                f"{name}: share of equal codes", float(share), least=1 if exact else EQUAL_CODES
            )
            wanted = codec.decode(codes, scale)
            moved = (None if each is None else each.to(setting.device) for each in (codes, scale))
            decoded = codec.decode(*moved).cpu()  # type: ignore[arg-type]
            apart = (decoded - wanted).abs().max() / wanted.abs().max()
            found.figure(f"{name}: decoded, largest deviation", float(apart))
            if apart > (0 if name in PLAIN else 1e-5):
                found.problem(f"{name}: the same codes are decoded to other targets")
    prior = torch.rand(64, 196, generator=torch.Generator().manual_seed(0)).softmax(-1)
    equal = encode_prior(prior.to(setting.device)).cpu() == encode_prior(prior)
    found.check("priors: share of equal codes", float(equal.float().mean()), least=EQUAL_CODES)


def codec_of(name: str, width: int, tokens: int) -> Codec:
    """Return a codec for images of N tokens; it is fitted to a few made-up ones, if it needs it."""
    spec = parse_codec(name)
    return fit_codec(spec, _tokens(width, tokens)) if spec.needs_fit else make_codec(name)


def _tokens(width: int, tokens: int) -> Tensor:
    """Draw tokens (n, N, D) whose components fall off."""
    random = torch.Generator().manual_seed(0)
    spread_D = torch.arange(1, width + 1) ** -0.5
    images = max(LEAST_IMAGES, TOKENS // tokens)
    return torch.randn(images, tokens, width, generator=random) * spread_D


def step(setting: Setting, known: Figures, found: Findings) -> None:
    """Compare loss and gradients of a small student with the CPU's in fp32."""
    del known
    small = Setting(device_name=setting.device_name, tiny=True)
    on_cpu = Setting(device_name="cpu", tiny=True)
    wanted_loss, wanted = _gradients(on_cpu, "fp32")
    for precision, within in LOSS_WITHIN.items():
        with found.going_on(f"step {precision}"):
            loss, gradients = _gradients(small, precision)
            apart = abs(loss / wanted_loss - 1)
            found.check(f"step {precision}: loss, relative deviation", apart, most=within)
            cosine = float(F.cosine_similarity(gradients, wanted, dim=0))
            least = 0.9999 if precision == "fp32" else 0.98
            found.check(f"step {precision}: cosine of gradients", cosine, least=least)


def _gradients(setting: Setting, precision: str) -> tuple[float, Tensor]:
    """Return the loss of a step from the same weights, and all gradients as one vector."""
    width = 32
    task = pretraining(setting.student("B/16", width), make_codec("int8"), precision)
    batch = example_batch(setting, 8, width)
    loss = named(task.loss(task.model, batch, slice(0, 8), 1))["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad.flatten() for p in task.model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(grads).cpu()
