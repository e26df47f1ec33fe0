"""Fine-tuning: the real `Trainer` and `Classification` on the case's own batches.

Only the input is replaced: batches are those of the case. Where the case has normalised pixels or
mixed targets, they are not normalised or mixed again.

Legend: T micro batches, B images in one, S optimiser steps, Y classes, E width.
"""

import json
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity_cases.case import Case, Deviation, largest, most_relative, moved
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.encoders.backbone import Backbone, EncoderParts, assemble, backbone_arguments
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.classification.model import make_classifier
from milan_pipeline.evaluate.classification.task import Classification, ClassificationConfig
from milan_pipeline.evaluate.classification.views import LabelledBatch
from milan_pipeline.training.trainer import Trainer, TrainingConfig
from milan_pipeline.training.validation import evaluating

SIZES = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias")
EPS = 1e-6
# These leave pixels that are normalised already as they are, to the bit.
AS_IT_IS = (0.0,) * 3, (1 / 255,) * 3
OFFICIAL_ADAMW = {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False}


class Watched(Classification):
    """Our task, which records each step and does not mix what the case has mixed already.

    Attributes:
        losses: of each micro batch.
        rates: of each parameter, by its name, when a step is taken.
        norms: of all gradients together, as a step gets them.
    """

    def __init__(self, model: nn.Module, config: ClassificationConfig, case: Case) -> None:
        super().__init__(model, config, classes=case.values["config"]["num_classes"])
        self._adamw = case.settings.get("adamw", OFFICIAL_ADAMW)
        self._is_mixed = "labels" not in case.io
        self.losses: list[Tensor] = []
        self.rates: list[dict[str, float]] = []
        self.norms: list[Tensor] = []

    def optimiser(self) -> torch.optim.Optimizer:
        """Return ours, with the case's moments if they are others, and record its steps."""
        optimiser = super().optimiser()
        if self._adamw != OFFICIAL_ADAMW:
            for group in optimiser.param_groups:
                group.update(self._adamw, betas=tuple(self._adamw["betas"]))
        optimiser.register_step_pre_hook(self._note)
        return optimiser

    def loss(self, replica: nn.Module, data: LabelledBatch, part: slice, step: int) -> Tensor:
        """Return ours, and record it."""
        loss = super().loss(replica, data, part, step)
        self.losses.append(loss.detach())
        return loss

    def _note(self, optimiser: torch.optim.Optimizer, *_: object) -> None:
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        groups = optimiser.param_groups
        self.rates.append({names[id(p)]: float(g["lr"]) for g in groups for p in g["params"]})
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norms.append(nn.utils.get_total_norm(gradients))

    def _mixed(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Do not mix again; then `labels_B` are soft targets, (B, Y)."""
        return (images_BCHW, labels_B) if self._is_mixed else super()._mixed(images_BCHW, labels_B)


def compare(case: Case) -> Iterator[Deviation]:
    """Yield a deviation for rates, losses, gradients, test logits and every parameter's change.

    Raises:
        MilanError: the case's sizes do not fit each other or its weights.
    """
    task = Watched(_classifier(case), _recipe(case), case)
    before = _test_logits(case, task.model)
    clipped = _train(case, task)
    yield from _rates(case, task)
    losses, norms = torch.stack(task.losses), torch.stack(clipped or task.norms)
    yield largest("losses", case.out["loss"], losses, case.tolerance("loss"))
    allowed = case.tolerance("grad_norm")
    yield most_relative("norms of all gradients", case.out["grad_norm"], norms, allowed)
    for name, logits in (
        ("test_logits_before", before),
        ("test_logits", _test_logits(case, task.model)),
    ):
        if logits is not None and name in case.out:
            yield largest(name, case.out[name], logits, case.tolerance("test_logits"))
    yield from _ways(case, task.model)


def _classifier(case: Case) -> nn.Module:
    """Make our classifier with an encoder of the case's sizes, and load the case's weights."""
    config = case.values["config"]
    if config.get("layer_norm_eps", EPS) != EPS:
        raise DataError(f"the case's norms have eps {config['layer_norm_eps']}, ours {EPS} alone")
    sizes = {name: config[name] for name in SIZES if name in config}
    arguments = backbone_arguments({"model_name": "vit_base_patch16_224", **sizes})
    mean, std = (list(case.settings[name]) for name in ("mean", "std"))
    vit, arguments = assemble(EncoderParts(arguments, None, mean, std), origin="the case")
    backbone = Backbone(name="the case", model=vit, arguments=arguments, mean=mean, std=std)
    model, _ = make_classifier(
        backbone,
        classes=config["num_classes"],
        pool="mean" if "fc_norm.weight" in case.state else "cls",
        drop_path=config.get("drop_path", 0.0),
        seed=0,
    )
    model.load_state_dict(case.state, strict=True)
    return model


def _recipe(case: Case) -> ClassificationConfig:
    settings = case.settings
    named = ("epochs", "warmup_epochs", "min_lr", "layer_decay", "weight_decay", "smoothing")
    mean, std = AS_IT_IS
    if "pixels" in case.io:
        mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return ClassificationConfig(
        **{name: settings[name] for name in named},
        batch=settings["micro_batch"] * settings["accum_iter"],
        base_lr=settings["blr"],
        mixup=0.0 if "labels" in case.io else 1.0,  # which takes the loss of soft targets
        cutmix=0.0,
        erasing=0.0,
        bf16=False,
        mean=mean,
        std=std,
        seed=0,
    )


def _train(case: Case, task: Watched) -> list[Tensor]:
    """Take all steps; return the gradients' norms before they are clipped, if they are."""
    settings = case.settings
    accumulated, an_epoch = settings["accum_iter"], settings["micro_batches_per_epoch"]
    images = case.io["pixels" if "pixels" in case.io else "images"]
    labels = case.io["labels" if "labels" in case.io else "targets"]
    if an_epoch % accumulated or len(images) % accumulated:
        raise DataError(
            f"{an_epoch} micro batches an epoch are no whole number of steps of {accumulated}; "
            "record the case with a multiple"
        )

    def batches_from(steps: range) -> Generator[LabelledBatch, None, None]:
        for step in steps:
            part = slice(step * accumulated, (step + 1) * accumulated)
            images_BCHW = images[part].flatten(0, 1).clone()
            keys = [f"{step}.{row}" for row in range(len(images_BCHW))]
            yield LabelledBatch(images_BCHW, labels[part].flatten(0, 1), keys)

    total = len(images) // accumulated
    config = TrainingConfig(
        batch=images.shape[1] * accumulated,
        micro_batch=images.shape[1],
        total_steps=total,
        checkpoint_every=total,
        keep=1,
        log_every=total,
        clip_grad=settings["clip_grad"],
        title="parity",
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        trainer = Trainer(run, task, config, StepClock((an_epoch // accumulated,)))
        trainer.train(batches_from, StopRequest())
        rows = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
        return [torch.tensor(row["grad_norm"]) for row in rows if "grad_norm" in row]


def _test_logits(case: Case, model: nn.Module) -> Tensor | None:
    if "test_images" not in case.io:
        return None
    with evaluating(model), torch.no_grad():
        logits: Tensor = model(case.io["test_images"])
    return logits


def _rates(case: Case, task: Watched) -> Iterator[Deviation]:
    """Compare the rate of each parameter in each step, a line for each group of the case."""
    allowed, found = case.tolerance("lr"), set[str]()
    for official_S, group in zip(case.out["lr"].T, case.values["groups"], strict=True):
        names = group["names"]
        missing = dict.fromkeys(names, float("nan"))
        own = torch.tensor(
            [[(missing | r)[name] for name in names] for r in task.rates], dtype=torch.float64
        )
        official = official_S[:, None].expand_as(own)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield most_relative(f"rates of {names[0]}{more}", official, own, allowed)
        found.update(names)
    untold = len(task.rates[0].keys() - found)
    yield Deviation("parameters that only ours trains", 0, untold, "abs", untold, 0.0)


def _ways(case: Case, model: nn.Module) -> Iterator[Deviation]:
    """Compare each parameter at the end; key biases separately, as their gradient is rounding."""
    own: dict[str, Any] = dict(model.named_parameters())
    for name, official in case.final.items():
        start, ours = case.state[name], own[name].detach()
        if name.endswith("attn.qkv.bias"):
            E = len(official) // 3
            keys = float((ours - start)[E : 2 * E].norm())
            recorded = float((official - start)[E : 2 * E].norm())
            allowed = case.tolerance("key_biases")
            yield Deviation(f"{name}, keys, at most", recorded, keys, "abs", keys, allowed)
            start, official, ours = (  # noqa: PLW2901
                torch.cat([bias[:E], bias[2 * E :]]) for bias in (start, official, ours)
            )
        yield moved(name, start, official, ours, case.tolerance("final"))
