"""One pretraining step: mask, positions, predictions, loss and the norms of all gradients.

A key bias shifts all logits of a query alike, so softmax ignores it and its true gradient is zero.
In the official parameters it is one tensor with the value bias (`qkv`, `kv`), whose gradient is not
zero, and the norm of the whole tensor is compared. If a recorded norm is below `NOISE` of the
largest, it is only the rounding of fp32 sums: then ours need not equal it, only be as small.
"""

from collections.abc import Iterator

import torch

from benchmarks.parity_cases.case import Case, Deviation, largest
from milan_pipeline.models.decoder import PromptingDecoder
from milan_pipeline.models.positions import sincos_positions
from milan_pipeline.models.student import Student, in_grid_order, patchify
from milan_pipeline.models.vit import build_encoder
from milan_pipeline.pretraining.losses import cosine_loss
from milan_pipeline.weights.official import load_official, official_name

LOSS_TOLERANCE = 1e-6
PRED_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
NOISE = torch.finfo(torch.float32).eps


def build_student(case: Case) -> Student:
    """Build our student in the sizes of the case and give it the official weights.

    Raises:
        MilanError: the sizes do not fit each other or the weights.
    """
    config = case.values["config"]
    image_size = config["img_size"]
    encoder = build_encoder(
        "vit_base_patch16_224",
        image_size=image_size if isinstance(image_size, int) else tuple(image_size),
        patch_size=config["patch_size"],
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
    )
    decoder = PromptingDecoder(
        config["embed_dim"],
        encoder.patch_embed.grid_size,
        case.io["targets"].shape[-1],
        width=config["decoder_embed_dim"],
        depth=config["decoder_depth"],
        heads=config["decoder_num_heads"],
    )
    student = Student(encoder, decoder)
    load_official(student, case.state)
    return student.eval()


def compare(case: Case) -> Iterator[Deviation]:
    """Yield a deviation for the mask, the positions, the predictions, the loss and each gradient.

    Raises:
        MilanError: the case's sizes do not fit each other or its weights.
    """
    student = build_student(case)
    kept = case.values["num_kept"]
    kept_BK = case.io["ids_shuffle"][:, :kept].sort(dim=1).values
    masked_BM = case.io["ids_shuffle"][:, kept:].sort(dim=1).values
    mask_BL = torch.ones_like(case.io["mask"]).scatter(1, kept_BK, 0.0)
    yield largest("mask", case.io["mask"], mask_BL, 0.0)
    for name in ("pos_embed", "decoder_pos_embed"):
        table = case.state[name]
        positions = sincos_positions(student.decoder.grid, table.shape[-1])
        yield largest(name, table, positions, 0.0)

    patches_BLP = patchify(case.io["images"], student.encoder.patch_embed.patch_size[0])
    patches_BKP = patches_BLP[torch.arange(len(kept_BK))[:, None], kept_BK]
    pred_BND = in_grid_order(student(patches_BKP, kept_BK, masked_BM), kept_BK, masked_BM)
    yield largest("predictions", case.io["pred"], pred_BND.detach(), PRED_TOLERANCE)
    loss = cosine_loss(pred_BND, case.io["targets"])
    official, ours = case.values["loss"], loss.item()
    yield Deviation("loss", official, ours, "abs", abs(ours - official), LOSS_TOLERANCE)
    loss.backward()  # type: ignore[no-untyped-call]
    yield from _gradients(student, case.values["grad_norms"])


def _gradients(student: Student, norms: dict[str, float]) -> Iterator[Deviation]:
    """Compare gradient norms; a parameter without one on one side must have none on the other."""
    noise = NOISE * max(norms.values())
    missing = float("nan")
    ours = {
        official_name(name): parameter.grad.norm().item()
        for name, parameter in student.named_parameters()
        if parameter.grad is not None
    }
    for name in [*norms, *(ours.keys() - norms.keys())]:
        official, own = norms.get(name, missing), ours.get(name, missing)
        difference, what = abs(own - official), f"gradient of {name}"
        if official < noise:
            yield Deviation(what, official, own, "abs", difference, noise)
        else:
            yield Deviation(what, official, own, "rel", difference / official, GRADIENT_TOLERANCE)
