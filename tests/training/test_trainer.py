"""The loop: what it computes and logs, and when it stops of its own accord."""

import dataclasses
import multiprocessing
import shutil

import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.cluster.world import blocks_of
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches, step_clock
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.pretraining.examples import ToExamples
from milan_pipeline.pretraining.losses import cosine_loss
from milan_pipeline.training.meter import in_words
from milan_pipeline.training.optim import learning_rate
from tests.support.runs import (
    RECIPE,
    STEPS,
    require_same_end,
    spoiled_codes,
    student_for,
)

# ---- what is computed


def test_training_lowers_the_loss(run):
    run.train(total_steps=12, warmup_epochs=0.0, base_lr=0.1)
    losses = [row["loss"] for row in run.log]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_the_first_loss_is_the_students_on_normalised_pixels_and_decoded_targets(data, whole):
    student = student_for(data)
    examples = data.examples(student, mask_ratio=0.75)
    batch = next(
        batches(
            PairSamples(data.pairs), data.order, ToExamples(examples), steps=range(1), workers=0
        )
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (RECIPE.mean, RECIPE.std))
    per_pixel = batch.patches_BKP.reshape(-1, 3, 8, 8) / 255
    patches_BKP = ((per_pixel - mean) / std).reshape(batch.patches_BKP.shape)
    pred_BTD = student(patches_BKP, batch.kept_BK, batch.masked_BM)
    loss = cosine_loss(pred_BTD, batch.codes[0].float()).detach()
    assert whole.log[0]["loss"] == pytest.approx(float(loss), rel=1e-6)


def test_another_seed_draws_other_masks(data):
    student, kept = student_for(data), []
    for seed in (0, 0, 1):
        ours = dataclasses.replace(data, order=dataclasses.replace(data.order, seed=seed))
        to_examples = ToExamples(ours.examples(student, mask_ratio=0.75))
        source = batches(data.samples, data.order, to_examples, steps=range(1), workers=0)
        kept.append(next(source).kept_BK)
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])


def test_accumulated_parts_equal_the_whole_batch(run, whole):
    run.train(micro_batch=3)  # parts of 3, 3 and 2
    losses = [[row["loss"] for row in each.log] for each in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    apart = distance(run.student, whole.student)
    assert 0 < apart < 5e-3 * distance(whole.student, student_for(run.data))


def distance(ours, theirs):
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return float(sum((left - right).detach().square().sum() for left, right in pairs)) ** 0.5


@pytest.mark.slow
# The compiler hides this warning of its own making, but not from a filter that makes it an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_blocks_compute_the_same(run, whole):
    run.train(compile=True, micro_batch=4)
    losses = [[row["loss"] for row in each.log] for each in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert run.student.state_dict().keys() == whole.student.state_dict().keys()
    require_compiled(run.student)


def require_compiled(student):
    for block in blocks_of(student):
        assert block._compiled_call_impl is not None


def test_gradients_are_clipped_over_the_whole_batch(run, whole):
    run.train(clip_grad=1e-3, micro_batch=3)
    norms = [row["grad_norm"] for row in run.log]
    assert all(norm > 1e-3 for norm in norms)
    assert all("grad_norm" not in row for row in whole.log)
    gradients = [p.grad for p in run.student.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-3)


def test_the_moving_average_takes_a_share_of_each_steps_weights(run):
    run.train(ema_decay=0.75, total_steps=3, checkpoint_every=1, keep=3, warmup_epochs=0.0)
    name, steps = "encoder.blocks.0.mlp.fc1.weight", sorted(run.folder.glob("checkpoints/step-*"))
    averages, weights = (
        [load_file(step / f"{kind}.safetensors")[name] for step in steps]
        for kind in ("ema", "student")
    )
    before = student_for(run.data).state_dict()[name]
    for average, now in zip(averages, weights, strict=True):
        moved, way = (average - before).flatten(), (now - before).flatten()
        share = float(moved @ way / (way @ way))
        assert 0.2 < share < 1.001  # however the decay warms up
        torch.testing.assert_close(moved, share * way, atol=1e-6, rtol=1e-3)
        before = average


def test_the_student_is_told_to_compute_blocks_again(run):
    run.train(gradient_checkpointing=True, total_steps=1)
    assert run.student.checkpoint_blocks is True


def test_sharding_needs_processes(run):
    with pytest.raises(ConfigError, match=r"--fsdp shards over processes.*torchrun"):
        run.train(fsdp=True)


def test_bfloat16_stays_near_float32_and_keeps_float32_weights(run, whole):
    run.train(bf16=True)
    losses = [[row["loss"] for row in each.log] for each in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert {value.dtype for value in run.student.parameters()} == {torch.float32}


# ---- what is logged


def test_the_log_tells_loss_rate_speed_waiting_and_memory(data, whole):
    fields = {"step", "epoch", "loss", "lr", "images_per_second", "data_wait_seconds"}
    fields.add("memory_bytes")
    assert all(row.keys() == fields for row in whole.log)
    assert all(row["images_per_second"] > 0 <= row["data_wait_seconds"] for row in whole.log)
    assert all(row["memory_bytes"] > 1_000_000 for row in whole.log)
    assert step_clock(data.samples, data.order).steps == (3, 3)
    for row in whole.log:
        assert row["epoch"] == pytest.approx((row["step"] - 1) / 3)
        expected = learning_rate(row["epoch"], base=0.02, batch=8, warmup_epochs=1.0, epochs=4)
        assert row["lr"] == expected
    assert whole.log[0]["lr"] == 0
    assert whole.log[3]["lr"] == pytest.approx(0.02 * 8 / 256)


def test_the_summary_counts_what_was_done_now(whole):
    assert whole.counts["steps"] == whole.counts["steps_done_now"] == STEPS
    assert whole.counts["images_done_now"] == 8 * STEPS
    assert whole.counts["images_per_second"] > 0
    assert 0 <= whole.counts["data_wait_share"] <= 1


def test_the_summary_in_words():
    counts = {"steps": 8, "steps_done_now": 3, "images_per_second": 2.5, "data_wait_share": 0.0312}
    assert in_words(counts) == (
        "8 steps, 3 of them now; 2.5 images/s; 3.1% of the time waiting for data"
    )


# ---- a loss that is not finite


def spoil(at):
    return lambda step, batch: spoiled_codes(batch) if step == at else batch


def test_a_loss_that_is_not_finite_stops_and_says_where(run, whole):
    keys: list[str] = []

    def spoiled(step, batch):
        keys.extend(batch.keys if step == 6 else [])
        return spoil(6)(step, batch)

    with pytest.raises(DataError, match=r"loss of step 6 is nan") as error:
        run.train(change=spoiled, checkpoint_every=4)
    message = str(error.value)
    assert len(keys) == 8
    assert all(key in message for key in keys)
    assert str(run.folder / "checkpoints/step-00000004") in message
    assert "--base-lr" in message
    assert run.newest == 4
    assert [row["step"] for row in run.log] == [1, 2, 3, 4, 5]
    run.train()  # with good data again
    require_same_end(run, whole)


def spoil_gradients(student):
    student.decoder.mask_token.register_hook(lambda gradient: gradient * torch.inf)


def test_a_gradient_norm_that_is_not_finite_stops_at_its_own_step(run):
    keys: list[str] = []

    def watched(step, batch):
        if step == 3:
            keys.extend(batch.keys)
            spoil_gradients(run.student)
        return batch

    with pytest.raises(DataError, match=r"gradient norm of step 3 is inf") as error:
        run.train(change=watched, clip_grad=1.0)
    assert len(keys) == 8
    assert all(key in str(error.value) for key in keys)
    assert [row["step"] for row in run.log] == [1, 2]


def test_weights_that_a_gradient_spoilt_are_never_saved(run):
    def spoilt(step, batch):
        if step == 4:
            spoil_gradients(run.student)
        return batch

    with pytest.raises(DataError, match=r"weight is not finite after step 4.*step-00000002"):
        run.train(change=spoilt)
    assert run.newest == 2


def test_a_loss_that_is_never_finite_has_no_good_checkpoint(run):
    with pytest.raises(DataError, match=r"loss of step 1 is nan.*good checkpoint is none"):
        run.train(change=spoil(1))


def test_nothing_is_left_running_after_an_error(run):
    with pytest.raises(DataError) as error:
        run.train(change=spoil(2), workers=2)
    assert not multiprocessing.active_children()
    assert "Traceback" not in str(error.value)


def test_a_run_that_goes_on_at_its_end_deletes_the_checkpoints_that_are_too_many(run, whole):
    """As they are left where a part ended after its last checkpoint and before old ones went."""
    run.train(keep=2)
    last = run.newest
    shutil.copytree(
        run.folder / "checkpoints/step-00000006", run.folder / "checkpoints/step-00000004"
    )
    run.train(keep=2)
    kept = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000008"]
    assert run.newest == last
    require_same_end(run, whole)
