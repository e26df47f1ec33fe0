"""What `finetune` looks at before its first step, and what it does with a stop while it scores."""

import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from timm.models import VisionTransformer

from milan_pipeline.cli.main import main
from milan_pipeline.stages.finetune.check import rate_warning
from tests.support.cli import run_cli
from tests.support.disturbances import asked_to_stop_at_scoring, at_step
from tests.support.finetune import SHORT, TINY_VIT, finetune, outcome, record, rows
from tests.support.labelled import spoil, write_coloured

ONE = ("--max-steps", 1)


@pytest.fixture
def data(tmp_path):
    """Twelve pictures to learn from and nine to score on, of three classes."""
    return write_coloured(tmp_path / "train", 4), write_coloured(tmp_path / "val", 3, seed=1)


def test_pictures_to_score_on_that_cannot_be_decoded_end_the_run_before_its_first_step(
    data, tmp_path, capsys
):
    kept = shutil.copytree(data[1], tmp_path / "kept")
    for name in ("red/000.jpg", "red/001.jpg"):
        spoil(data[1] / name)
    for words in ((), ("--dry-run", "--check", "all")):
        finetune(*data, tmp_path / "run", *words, code=1)
        assert "2 of 9 images are unreadable" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    shutil.copytree(kept, data[1], dirs_exist_ok=True)
    finetune(*data, tmp_path / "run", *ONE)
    assert record(tmp_path / "run", "scores.json")["val"] == 9


def test_a_class_of_which_no_picture_can_be_decoded_is_named(data, tmp_path, capsys):
    for path in (data[1] / "green").iterdir():
        spoil(path)
    words = ("--dry-run", "--check", "all", "--max-bad-fraction", 0.5)
    finetune(*data, tmp_path / "run", *words)
    said = capsys.readouterr().err
    assert f"no image of class 1 ('green') in --val {data[1]} can be decoded" in said


def test_a_picture_that_was_mended_counts_as_unreadable_no_more(data, tmp_path):
    whole = (data[1] / "red/000.jpg").read_bytes()
    spoil(data[1] / "red/000.jpg")
    finetune(*data, tmp_path / "run", "--max-steps", 3)
    assert record(tmp_path / "run", "scores.json")["unreadable"] == {"train": 0, "val": 1}
    (data[1] / "red/000.jpg").write_bytes(whole)
    finetune(*data, tmp_path / "run")
    scores = record(tmp_path / "run", "scores.json")
    assert scores["unreadable"] == {"train": 0, "val": 0}
    assert [row["step"] for row in rows(tmp_path / "run", "evaluations.jsonl")] == [3, 3, 6, 9]


def test_images_of_one_class_are_refused(tmp_path, capsys):
    write_coloured(tmp_path / "wrap/images", 2)
    finetune(tmp_path / "wrap", tmp_path / "wrap", tmp_path / "run", code=1)
    said = capsys.readouterr().err
    assert "has only images of class 0 ('images'); give a folder with a sub-folder for each" in said
    assert not (tmp_path / "run").exists()


def numbered(root, numbers, *, seed):
    """Write two pictures of each class number, listed in `list.tsv`, as shards."""
    coloured = write_coloured(root / "pictures", 6, seed=seed)
    pictures = sorted(coloured.rglob("*.jpg"))
    lines = [
        f"{path.relative_to(root)}\t{numbers[n % len(numbers)]}" for n, path in enumerate(pictures)
    ]
    (root / "list.tsv").write_text("\n".join(lines) + "\n")
    run_cli("pack-images", root / "list.tsv", root / "shards")
    return root / "shards"


def test_gaps_in_the_class_numbers_are_named(tmp_path, capsys):
    train = numbered(tmp_path / "a", [0, 1, 5], seed=0)
    val = numbered(tmp_path / "b", [0, 2, 5], seed=1)
    finetune(train, val, tmp_path / "run", *ONE)
    said = capsys.readouterr().err
    assert "no image of classes 3, 4 is in --train" in said
    assert "no image of class 2 is in --train" in said
    assert "no image of class 1 is in --val" in said


@pytest.mark.parametrize(("size", "refused"), [(1, True), (2, False)])
def test_one_image_a_step_is_refused_where_it_has_no_other_to_be_mixed_with(
    size, refused, data, tmp_path, capsys
):
    words = (*data, tmp_path / "run", "--batch-size", size)
    finetune(*words, "--dry-run", code=2 if refused else 0)
    assert ("--mixup 0 --cutmix 0" in capsys.readouterr().err) == refused
    finetune(*words, "--dry-run", "--mixup", 0, "--cutmix", 0)


@pytest.mark.parametrize("name", ["bogus", "rand-m9-typo5", "rand-m9-foo", "rand-mx", "augmix-q3"])
def test_an_augmentation_that_timm_does_not_know_is_refused_before_anything_is_read(
    name, data, tmp_path, capsys
):
    for words in ((), ("--dry-run",)):
        finetune(*data, tmp_path / "run", "--augment", name, *words, code=2)
        assert f"--augment '{name}'" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_run_whose_only_step_is_all_warm_up_is_warned_of_and_the_remedy_helps(
    data, tmp_path, capsys
):
    words = ("--epochs", 1, "--batch-size", 12)
    finetune(*data, tmp_path / "a", *words)
    assert "the learning rate of every step is 0" in capsys.readouterr().err
    finetune(*data, tmp_path / "b", *words, "--warmup-epochs", 0)
    assert "learning rate" not in capsys.readouterr().err
    assert rows(tmp_path / "b", "log.jsonl")[0]["lr"] > 0


def test_a_run_of_finetune_is_no_encoder_and_says_what_is(data, tmp_path, capsys):
    run = tmp_path / "run"
    finetune(*data, run, *ONE)
    capsys.readouterr()
    finetune(*data, tmp_path / "next", options=("--encoder", run, *SHORT), code=1)
    best = run / "best.safetensors"
    assert f"{run} is no run of pretrain; give the model" in capsys.readouterr().err
    finetune(*data, tmp_path / "next", *ONE, options=("--encoder", best, *SHORT))


def test_classes_that_a_classifier_knows_and_that_are_not_scored_are_named(data, tmp_path, capsys):
    finetune(*data, tmp_path / "run", *ONE)
    shards = numbered(tmp_path / "b", [0, 2], seed=1)
    run_cli(
        "finetune", "--eval-only", "--encoder", tmp_path / "run/best.safetensors", "--val", shards,
        "--out", tmp_path / "scores", "--workers", 0,
    )  # fmt: skip
    assert "no image of class 1 is in --val" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_where_memory_runs_out_the_option_is_named(error, data, tmp_path, capsys):
    def runs_out():
        raise error

    with at_step(2, runs_out):
        finetune(*data, tmp_path / "run", "--micro-batch", 3, code=2)
    said = capsys.readouterr().err
    assert "the memory of the device does not suffice" in said
    assert "give --micro-batch 1 or less or --gradient-checkpointing" in said


def test_other_micro_batches_are_warned_of(data, tmp_path, capsys):
    finetune(*data, tmp_path / "run", "--max-steps", 1)
    finetune(*data, tmp_path / "run", "--max-steps", 2, "--micro-batch", 64)
    assert "--micro-batch" not in capsys.readouterr().err
    finetune(*data, tmp_path / "run", "--max-steps", 3, "--micro-batch", 2)
    assert "--micro-batch 2 is not what" in capsys.readouterr().err


def test_a_set_that_is_learnt_and_scored_alike_is_warned_of(data, tmp_path, capsys):
    finetune(data[0], data[0], tmp_path / "run", "--dry-run")
    assert "--val has the images of --train" in capsys.readouterr().err


def test_copies_of_what_is_learnt_are_warned_of(data, tmp_path, capsys):
    shutil.copy(data[0] / "red/000.jpg", data[1] / "red/001.jpg")
    finetune(*data, tmp_path / "run", "--dry-run", "--check", "all")
    assert "1 of the 9 images of --val that were compared are also in" in capsys.readouterr().err


def test_evaluations_are_in_tensorboard(data, tmp_path):
    finetune(*data, tmp_path / "run", "--max-steps", 6)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("val/top1")]
    kept = [(row["step"], row["top1"]) for row in rows(tmp_path / "run", "evaluations.jsonl")]
    assert shown == [(step, np.float32(value)) for step, value in kept]


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_stop_in_an_evaluation_is_heeded_and_the_evaluation_repeated(at, data, tmp_path, capsys):
    """In the first one, and in the last, after the last step."""
    words = ("--micro-batch", 4)
    finetune(*data, tmp_path / "whole", *words)
    with asked_to_stop_at_scoring(at, VisionTransformer):
        finetune(*data, tmp_path / "run", *words, code=75)
    assert "the evaluation was left; run the same command to go on" in capsys.readouterr().err
    step = 3 if at == 1 else 9
    assert record(tmp_path / "run", "state.json")["step"] == step
    assert (tmp_path / f"run/checkpoints/step-{step:08d}").is_dir()
    finetune(*data, tmp_path / "run", *words)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_an_evaluation_that_is_longer_than_a_job_comes_to_its_end(data, tmp_path):
    """Each job is asked to stop at the second of the five batches that it scores."""
    options = (*TINY_VIT, *SHORT, "--micro-batch", 2)
    finetune(*data, tmp_path / "whole", options=options)
    words = ("--train", data[0], "--val", data[1], "--out", tmp_path / "run", *options)
    codes: list[int] = []
    while len(codes) < 30 and 0 not in codes:
        with asked_to_stop_at_scoring(2, VisionTransformer):
            codes.append(exit_code("finetune", *words))
    assert codes == [75] * (len(codes) - 1) + [0]
    assert len(codes) > 6
    found, expected = (rows(tmp_path / name, "evaluations.jsonl") for name in ("run", "whole"))
    assert found == expected
    assert not (tmp_path / "run/evaluation-part.json").exists()


def exit_code(*words):
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    return 0


def test_a_stop_while_a_model_is_scored_alone_is_heeded(data, tmp_path):
    finetune(*data, tmp_path / "run", *ONE)
    words = (
        "finetune", "--eval-only", "--encoder", tmp_path / "run/best.safetensors", "--val", data[1],
        "--workers", 0, "--micro-batch", 4,
    )  # fmt: skip
    with asked_to_stop_at_scoring(1, VisionTransformer):
        run_cli(*words, "--out", tmp_path / "scores", code=75)
    assert not (tmp_path / "scores/scores.json").exists()
    run_cli(*words, "--out", tmp_path / "scores")
    assert (tmp_path / "scores/scores.json").exists()


def test_few_images_at_the_published_rate_are_warned_of(data, tmp_path, capsys):
    words = (*TINY_VIT, "--dry-run")
    finetune(*data, tmp_path / "run", options=words)
    assert (
        "--train has 12 images, and in batches of 8 the published --base-lr 0.0001 is a rate of "
        "3.13e-06" in capsys.readouterr().err
    )
    finetune(*data, tmp_path / "run", options=(*words, "--base-lr", 0.001))
    assert "published" not in capsys.readouterr().err
    assert rate_warning(1e-4, 1024, 12) is None
    assert rate_warning(1e-4, 128, 1_281_167) is None
