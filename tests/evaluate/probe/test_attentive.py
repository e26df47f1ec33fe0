"""The attentive probe: its head against torch's attention, what it learns, how a rate is chosen."""

import math
from collections.abc import Callable, Generator, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.probe.attentive import (
    AttentiveHead,
    AttentiveProbes,
    attentive_answers,
    heads_of,
    train_probes,
)
from milan_pipeline.evaluate.probe.protocols import Attentive

WIDTH, PATCHES = 8, 6
SHORT = Attentive(rates=(0.03,), epochs=12, batch=20)


class Given:
    """Patches that are there, in place of a `PatchSource`."""

    device = torch.device("cpu")
    shape = (PATCHES, WIDTH)

    def __init__(self, images: int, seed: int) -> None:
        """Draw noise; one patch, anywhere, tells the class, and another one balances the mean."""
        draws = torch.Generator().manual_seed(seed)
        self.patches_NLE = 0.3 * torch.randn(images, PATCHES, WIDTH, generator=draws)
        self.labels = np.arange(images) % 2
        for image, label in zip(self.patches_NLE, self.labels, strict=True):
            one, other = torch.randperm(PATCHES, generator=draws)[:2]
            image[[one, other], 0] = torch.tensor([3.0, -3.0])
            image[[one, other], 1] = torch.tensor([3.0, -3.0]) * (1 if label else -1)
        self.read = 0

    def batches(
        self, rows: Callable[[], Iterable[Tensor]]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        for rows_B in rows():
            self.read += len(rows_B)
            yield self.patches_NLE[rows_B], rows_B


def test_the_head_is_cross_attention_of_one_query():
    head = AttentiveHead(WIDTH, 5, 2, seed=3).eval()
    patches_BLE = torch.randn(4, PATCHES, WIDTH)

    def by_head(tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:2], 2, -1).transpose(1, 2)

    query = head.query_HD.expand(4, 1, 2, -1).transpose(1, 2)
    pooled = F.scaled_dot_product_attention(
        query, by_head(head.key(patches_BLE)), by_head(head.value(patches_BLE))
    )
    expected = head.linear(pooled.transpose(1, 2).flatten(1))
    torch.testing.assert_close(head(patches_BLE), expected)


def test_heads_are_about_64_wide():
    assert [heads_of(width) for width in (768, 192, 128, 96, 100, 8, 200)] == [12, 3, 2, 1, 1, 1, 2]


def test_it_learns_what_the_mean_of_the_patches_does_not_hold():
    train, test = Given(120, 0), Given(60, 1)
    answers_N, choice = attentive_answers(train, test, SHORT)
    assert np.mean(answers_N == test.labels) > 0.95
    assert (choice.rate, choice.held_out, choice.heads) == (0.03, None, 1)
    again_N, _ = attentive_answers(train, test, SHORT)
    np.testing.assert_array_equal(again_N, answers_N)


def test_a_rate_is_chosen_on_training_images_alone():
    """The useless rate comes first, and the held-out tenth tells."""
    train, test = Given(120, 0), Given(60, 1)
    protocol = Attentive(rates=(1e-7, 0.03), epochs=12, batch=20)
    answers_N, choice = attentive_answers(train, test, protocol)
    assert choice.rate == 0.03
    assert choice.held_out is not None
    assert choice.held_out > 90
    assert np.mean(answers_N == test.labels) > 0.95
    assert test.read == 60  # once, by the chosen probe


def test_rates_do_not_disturb_each_other():
    """A head among others learns what it learns alone; one that diverges is passed over."""
    train, rows = Given(60, 0), np.arange(60)
    given = (train, rows)
    many = train_probes(*given, (0.03, 1e30), SHORT).heads[0]
    alone = train_probes(*given, (0.03,), SHORT).heads[0]
    for ours, theirs in zip(many.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    protocol = Attentive(rates=(float("inf"), 0.03), epochs=12, batch=20)
    assert attentive_answers(train, train, protocol)[1].rate == 0.03
    alone_diverges = Attentive(rates=(float("inf"),), epochs=2, batch=20)
    with pytest.raises(DataError, match="has diverged; give an --attentive-lr below inf"):
        attentive_answers(train, train, alone_diverges)


def test_rates_fall_by_half_a_cosine_with_a_small_decay():
    """As in V-JEPA's frozen evaluation; three epochs of three batches."""
    seen: list[tuple[float, float]] = []

    def note(optimiser: torch.optim.Optimizer, *_: object) -> None:
        seen.extend((group["lr"], group["weight_decay"]) for group in optimiser.param_groups)

    protocol = Attentive(rates=(0.5,), epochs=3, batch=20)
    with register_optimizer_step_post_hook(note):
        train_probes(Given(60, 0), np.arange(60), (0.5,), protocol)
    fallen = [0.25 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
    assert [rate for rate, _ in seen] == pytest.approx(fallen)
    assert {decay for _, decay in seen} == {0.001}


def test_patches_are_normed_once_over_images_and_places():
    probes = AttentiveProbes(WIDTH, 2, 1, seed=0).train()
    probes(5 + 2 * torch.randn(50, PATCHES, WIDTH))
    assert probes.norm.running_mean is not None
    assert probes.norm.running_mean.mean() == pytest.approx(0.5, abs=0.05)  # a tenth of 5
    assert not list(probes.norm.parameters())


def test_the_batch_suits_small_sets():
    assert [Attentive().batch_of(images) for images in (10**7, 50_000, 3000, 300, 9)] == [
        1024, 641, 38, 16, 9,
    ]  # fmt: skip
    with pytest.raises(DataError, match="too few to hold a tenth out"):
        attentive_answers(Given(5, 0), Given(5, 0), Attentive())
