"""A stop, a crash or a torn checkpoint at any step changes nothing in the end."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.core.interrupts import StopRequest
from tests.support.runs import STEPS, Run, require_same_end

LAST = f"checkpoints/step-{STEPS:08d}"


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_stop_at_any_step_ends_in_the_same_weights(run, whole, step):
    run.stop_at(step)
    assert run.state == ("interrupted", step)
    assert [row["step"] for row in run.log] == list(range(1, step + 1))
    assert run.newest == step
    counts = run.train()
    assert counts["steps_done_now"] == STEPS - step
    require_same_end(run, whole)


@pytest.mark.parametrize("step", [1, 3, 8])
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


def test_the_moving_average_and_clipping_go_on_bit_for_bit(run, whole, data, tmp_path):
    changes = {"ema_decay": 0.9, "clip_grad": 0.1}
    other = Run(data, tmp_path / "other")
    other.train(**changes)
    run.break_at(4, **changes)
    run.stop_at(5, **changes)
    run.train(**changes)
    require_same_end(run, other)
    averages = [load_file(each.folder / LAST / "ema.safetensors") for each in (run, other)]
    assert averages[0].keys() == whole.student.state_dict().keys()
    assert all(torch.equal(value, averages[1][name]) for name, value in averages[0].items())
    student = run.student.state_dict()
    assert any(not torch.equal(value, student[name]) for name, value in averages[0].items())


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
