"""The loop: what it computes, what it logs, and that a stop at any step changes nothing."""

import dataclasses
import json
import multiprocessing
import shutil

import pytest
import torch

from milan_pipeline.checkpoints import newest_checkpoint
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.pretraining import build_student, open_run_data
from milan_pipeline.recipe import learning_rate
from milan_pipeline.stream import batches
from milan_pipeline.student import cosine_loss, patchify
from milan_pipeline.training import StudentInput, Trainer, TrainingConfig

STEPS = 8
CONFIG = TrainingConfig(
    batch=8,
    micro_batch=8,
    epochs=4,
    warmup_epochs=1.0,
    base_lr=0.02,
    weight_decay=0.05,
    total_steps=STEPS,
    bf16=False,
    checkpoint_every=2,
    keep=2,
    log_every=3,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
)


@pytest.fixture(scope="module")
def data(image_shards, target_shards):
    return open_run_data(
        str(image_shards),
        str(target_shards),
        views=None,
        on_missing="error",
        batch=8,
        lanes=4,
        block=5,
        seed=0,
    )


def student_for(data):
    return build_student(
        "vit_tiny_patch16_224",
        data,
        seed=0,
        patch_size=8,
        width=16,
        depth=1,
        heads=2,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
    )[0]


def unchanged(_, batch):
    return batch


class Run:
    """A run folder and the student of its latest part."""

    def __init__(self, data, folder):
        self.data = data
        self.folder = folder

    def train(self, *, change=unchanged, stop=None, workers=0, **changes):
        """Train in a new trainer, as a new process would; `change` meddles with the batches."""
        config = dataclasses.replace(CONFIG, **changes)
        self.student = student_for(self.data)
        examples = self.data.examples(self.student, mask_ratio=0.75)

        def batches_from(steps):
            pairs, order = self.data.pairs, self.data.order
            source = batches(pairs, order, examples, steps=steps, workers=workers)
            for step, batch in zip(steps, source, strict=True):
                yield change(step + 1, batch)

        codec, clock = self.data.layout.codec, self.data.clock
        trainer = Trainer(self.folder, self.student, codec, config, clock)
        return trainer.train(batches_from, stop or StopRequest())

    def stop_at(self, step, **changes):
        """Train until a stop signal comes during a step."""
        stop = StopRequest()

        def signalled(current, batch):
            stop.signal_name = "SIGUSR1" if current == step else stop.signal_name
            return batch

        with pytest.raises(InterruptedRunError, match=f"SIGUSR1 received.*step {step};"):
            self.train(change=signalled, stop=stop, **changes)

    def break_at(self, step, **changes):
        """Train until something breaks before a step, with no chance to save."""

        def broken(current, batch):
            if current == step:
                raise ZeroDivisionError
            return batch

        with pytest.raises(ZeroDivisionError):
            self.train(change=broken, **changes)

    @property
    def log(self):
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    @property
    def state(self):
        state = json.loads((self.folder / "state.json").read_text())
        return state["state"], state["step"]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An undisturbed run."""
    run = Run(data, tmp_path_factory.mktemp("whole"))
    run.counts = run.train()
    return run


@pytest.fixture
def run(data, tmp_path):
    return Run(data, tmp_path / "run")


def require_same_weights(ours, theirs):
    right = theirs.student.state_dict()
    for name, value in ours.student.state_dict().items():
        assert torch.equal(value, right[name]), name


def require_same_end(ours, theirs):
    require_same_weights(ours, theirs)
    assert [row["step"] for row in ours.log] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in ours.log] == [row["loss"] for row in theirs.log]
    assert [row["lr"] for row in ours.log] == [row["lr"] for row in theirs.log]


# ---- what is computed


def test_training_lowers_the_loss(run):
    run.train(total_steps=12, warmup_epochs=0.0, base_lr=0.1)
    losses = [row["loss"] for row in run.log]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_the_first_loss_is_the_students_on_normalised_pixels_and_decoded_targets(data, whole):
    student = student_for(data)
    examples = data.examples(student, mask_ratio=0.75)
    batch = next(batches(data.pairs, data.order, examples, steps=range(1), workers=0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CONFIG.mean, CONFIG.std))
    per_pixel = batch.patches_BKP.reshape(-1, 3, 8, 8) / 255
    patches_BKP = ((per_pixel - mean) / std).reshape(batch.patches_BKP.shape)
    pred_BND = student(patches_BKP, batch.kept_BK, batch.masked_BM)
    loss = cosine_loss(pred_BND, batch.codes_BNC.float()).detach()
    assert whole.log[0]["loss"] == pytest.approx(float(loss), rel=1e-6)


def test_pixels_are_normalised_channel_by_channel(data):
    student_input = StudentInput(CONFIG, data.layout.codec, torch.device("cpu"))
    image_CHW = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)
    found = student_input.pixels(patchify(image_CHW, 4)[None])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CONFIG.mean, CONFIG.std))
    expected = patchify((image_CHW.float() / 255 - mean) / std, 4)[None]
    torch.testing.assert_close(found, expected)


def test_accumulated_parts_equal_the_whole_batch(run, whole):
    run.train(micro_batch=3)  # parts of 3, 3 and 2
    losses = [[row["loss"] for row in each.log] for each in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    apart = distance(run.student, whole.student)
    assert 0 < apart < 1e-3 * distance(whole.student, student_for(run.data))


def distance(ours, theirs):
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return float(sum((left - right).detach().square().sum() for left, right in pairs)) ** 0.5


def test_bfloat16_stays_near_float32_and_keeps_float32_weights(run, whole):
    run.train(bf16=True)
    losses = [[row["loss"] for row in each.log] for each in (run, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert {value.dtype for value in run.student.parameters()} == {torch.float32}


def test_loader_processes_change_nothing(run, whole):
    run.train(workers=2)
    require_same_end(run, whole)
    assert not multiprocessing.active_children()


# ---- what is logged


def test_the_log_tells_loss_rate_speed_and_waiting(data, whole):
    fields = {"step", "epoch", "loss", "lr", "images_per_second", "data_wait_seconds"}
    assert all(row.keys() == fields for row in whole.log)
    assert all(row["images_per_second"] > 0 <= row["data_wait_seconds"] for row in whole.log)
    assert data.clock.steps == (3, 3)
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


# ---- stop and resume


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_stop_at_any_step_ends_in_the_same_weights(run, whole, step):
    run.stop_at(step)
    assert run.state == ("interrupted", step)
    assert [row["step"] for row in run.log] == list(range(1, step + 1))
    assert newest_checkpoint(run.folder)[0] == step
    counts = run.train()
    assert counts["steps_done_now"] == STEPS - step
    require_same_end(run, whole)


@pytest.mark.parametrize("step", [1, 2, 3, 6, 8])
def test_a_crash_at_any_step_goes_on_from_the_last_checkpoint(run, whole, step):
    run.break_at(step)
    assert run.state[0] == "running"
    counts = run.train()
    assert counts["steps_done_now"] == STEPS - (step - 1) // 2 * 2
    require_same_end(run, whole)


def test_crash_upon_crash_ends_in_the_same_weights(run, whole):
    for step in (3, 4, 7):
        run.break_at(step)
    run.stop_at(7)
    run.train()
    require_same_end(run, whole)


def test_a_torn_checkpoint_costs_no_more_than_its_steps(run, whole):
    run.stop_at(5)
    (run.folder / "checkpoints/step-00000005/student.safetensors").write_bytes(b"torn")
    counts = run.train()
    assert counts["steps_done_now"] == STEPS - 4
    require_same_end(run, whole)


def test_without_any_whole_checkpoint_the_run_starts_anew(run, whole):
    run.break_at(5)
    shutil.rmtree(run.folder / "checkpoints")
    run.train()
    require_same_end(run, whole)


def test_a_stop_during_the_last_step_is_no_interruption(run, whole):
    stop = StopRequest()

    def signalled(step, batch):
        stop.signal_name = "SIGTERM" if step == STEPS else None
        return batch

    run.train(change=signalled, stop=stop)
    require_same_end(run, whole)


def test_a_run_that_is_past_its_end_is_left_as_it_is(run, whole):
    run.train()
    counts = run.train(total_steps=3)
    assert (counts["steps"], counts["steps_done_now"]) == (STEPS, 0)
    require_same_end(run, whole)


def test_a_longer_run_goes_on_where_a_shorter_one_ended(run, whole):
    run.train(total_steps=5)
    assert len(run.log) == 5
    run.train()
    require_same_end(run, whole)


# ---- a loss that is not finite


def spoil(at):
    def change(step, batch):
        if step != at:
            return batch
        return batch._replace(codes_BNC=torch.full_like(batch.codes_BNC, torch.nan))

    return change


def test_a_loss_that_is_not_finite_stops_and_says_where(run, whole):
    keys = []

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
    assert newest_checkpoint(run.folder)[0] == 4
    assert [row["step"] for row in run.log] == [1, 2, 3, 4, 5]
    run.train()  # with good data again
    require_same_end(run, whole)


def test_a_loss_that_is_never_finite_has_no_good_checkpoint(run):
    with pytest.raises(DataError, match=r"loss of step 1 is nan.*good checkpoint is none"):
        run.train(change=spoil(1))


def test_nothing_is_left_running_after_an_error(run):
    with pytest.raises(DataError) as error:
        run.train(change=spoil(2), workers=2)
    assert not multiprocessing.active_children()
    assert "Traceback" not in str(error.value)
