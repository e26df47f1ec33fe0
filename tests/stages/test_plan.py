"""plan: its bytes are those that extraction and packing then write; what it says of the rest."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.planning.teacher_speed import TeacherSpeed
from milan_pipeline.stages.plan.report import PlanReport
from milan_pipeline.targets.codec_bytes import most_shards_codec_bytes, most_store_codec_bytes
from tests.support.cli import configured, run_cli
from tests.support.clip import write_tiny_clip
from tests.support.pictures import write_picture


def document(capsys) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_small_world_takes_what_was_said(
    image_shards: Path, tiny_clip: Path, target_store: Path, target_shards: Path, capsys
) -> None:
    run_cli(
        "plan", "--images", image_shards, "--teacher", f"local-dir:{tiny_clip}", "--views", 2,
        "--json",
    )  # fmt: skip
    said = document(capsys)
    assert said["store_bytes"] == pytest.approx(size_of(target_store), rel=0.02)
    assert said["shard_bytes"] == pytest.approx(size_of(target_shards), rel=0.02)


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images in 2 shards, some with keys that are long or not ASCII once packed."""
    root = tmp_path_factory.mktemp("hundreds")
    for number in range(300):
        folder = f"{'long' * 25}" if number % 7 == 0 else "short"
        write_picture(root / "in" / folder / f"{number}.jpg", number, (40, 40))
    run_cli("pack-images", root / "in", root / "shards", "--samples-per-shard", 270)
    return root / "shards"


@pytest.mark.parametrize("codec", ["float16", "int8"])
@pytest.mark.parametrize("image_size", [16, 56])
def test_a_plan_comes_true(
    hundreds: Path, tmp_path: Path, codec: str, image_size: int, capsys
) -> None:
    clip = write_tiny_clip(tmp_path / "clip", image_size=image_size)
    teacher = ("--teacher", f"local-dir:{clip}", "--codec", codec)
    store, shards = tmp_path / "targets.zarr", tmp_path / "targets"
    run_cli("plan", "--images", hundreds, *teacher, "--json", "--out", tmp_path)
    said = document(capsys)
    run_cli("extract-targets", "--images", hundreds, "--out", store, *teacher, "--dry-run")
    foretold = int(capsys.readouterr().out.split("about ")[1].split()[0])
    run_cli("extract-targets", "--images", hundreds, "--out", store, *teacher)
    run_cli("pack-targets", "--targets", store, "--out", shards)
    assert said["store_bytes"] == pytest.approx(size_of(store), rel=0.02)
    assert said["shard_bytes"] == pytest.approx(size_of(shards), rel=0.02)
    assert said["bytes_per_sample_store"] == said["store_bytes"] / 300
    assert foretold == pytest.approx(size_of(store), rel=0.02)
    assert said["fits"]
    assert said["free_bytes"] > said["store_bytes"]


def test_a_plan_of_a_fitted_codec_comes_true(hundreds: Path, tmp_path: Path, capsys) -> None:
    """Its arrays are counted as if they had all the components that there can be."""
    clip = write_tiny_clip(tmp_path / "clip", image_size=16)
    words = ("--images", hundreds, "--teacher", f"local-dir:{clip}", "--codec", "joint:bytes=3")
    store, shards = tmp_path / "targets.zarr", tmp_path / "targets"
    run_cli("plan", *words, "--json")
    said = document(capsys)
    foretold = []
    for more in (("--dry-run",), (), ("--dry-run", "--overwrite", "--view-seed", 1)):
        run_cli("extract-targets", *words, "--out", store, *more)
        foretold += re.findall(r"bytes to write: about (\d+)", capsys.readouterr().out)
    run_cli("pack-targets", "--targets", store, "--out", shards)
    spec, codec = parse_codec("joint:bytes=3"), size_of(store / "codec")
    unused = most_store_codec_bytes(spec, 5, 24) - codec
    assert 0 <= unused < 10 * codec
    for size in (said["store_bytes"], *map(int, foretold)):
        assert size - unused == pytest.approx(size_of(store), rel=0.02)
    unused = most_shards_codec_bytes(spec, 5, 24) - (shards / "codec.safetensors").stat().st_size
    assert said["shard_bytes"] - unused == pytest.approx(size_of(shards), rel=0.02)
    run_cli("extract-targets", *words, "--out", store, "--dry-run")
    output = capsys.readouterr().out
    assert "units to do: 0, done: 2" in output
    assert "bytes to write: about 0, " in output


def test_the_table(tiny_clip: Path, tmp_path: Path, capsys) -> None:
    run_cli(
        "plan", "--samples", 2500, "--teacher", f"local-dir:{tiny_clip}", "--student-rate", 100,
        "--teacher-rate", 10, "--epochs", 40, "--views", 4, "--out", tmp_path,
    )  # fmt: skip
    output = capsys.readouterr().out
    assert "targets:              10000 of 17 x 24, float16" in output
    assert "at 100 images/s" in output
    # Of twelve units four have 500 images; seven arrays, codes in four objects or two.
    assert "extraction on S3:     220 PUT, 188 GET: $0.00" in output
    assert "training on S3:       0 PUT, 200,000 GET: $0.08" in output
    assert "teacher, cached:      0.2778 device-hours" in output
    assert "teacher in the loop:  2.778 device-hours" in output
    assert "saved:                2.5 device-hours" in output
    assert "break-even:           after 4 of 40 epochs, summed over all students" in output
    assert "caching pays\n" in output
    assert "keys of 24 letters and images of 110000 bytes are assumed" in output
    assert "each view of an image is trained on 10 times" in output
    assert "step with teacher" not in output


def test_without_rates_multiply_adds_speak(tiny_clip: Path, capsys) -> None:
    run_cli("plan", "--samples", 5, "--teacher", f"local-dir:{tiny_clip}")
    assert "by multiply-adds alone" in capsys.readouterr().out


def test_another_student_of_a_recipe_is_not_taken_for_a_vit_b(
    tiny_clip: Path, tmp_path: Path, capsys
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("pretrain: {student: vit_tiny_patch16_224, epochs: 2}\n")
    run_cli("plan", "--samples", 5, "--teacher", f"local-dir:{tiny_clip}", "--config", recipe)
    said = capsys.readouterr().out
    assert "G multiply-adds more, of the teacher" in said
    assert "ViT-B/16" not in said
    assert "by multiply-adds alone" not in said


def test_numbers_may_be_written_as_users_do(tiny_clip: Path, tmp_path: Path, capsys) -> None:
    def stated(*words: object) -> object:
        run_cli("plan", "--teacher", f"local-dir:{tiny_clip}", *words, "--json", "--quiet")
        return document(capsys)

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("plan: {image-bytes: 110kB, samples: 1.5e3}\n")
    plain = stated("--samples", 1500, "--image-bytes", 110000, "--read-bandwidth", 2e9)
    short = ("--samples", "1.5k", "--image-bytes", "110kB", "--read-bandwidth", "2GB/s")
    assert stated(*short) == plain
    assert stated("--config", recipe, "--read-bandwidth", "2e9") == plain


def test_a_recipe_of_other_stages_is_enough(tiny_clip: Path, tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"extract-targets: {{teacher: 'local-dir:{tiny_clip}', views: 3, precision: fp16, "
        "codec: int8, min-scale: 0.4}\npretrain: {epochs: 7, precision: bf16}\n"
    )
    run_cli("plan", "--config", recipe, "--samples", 5, "--json")
    said = document(capsys)
    assert said["teacher_precision"] == "fp16"
    words = ("--views", 3, "--precision", "fp16", "--codec", "int8", "--epochs", 7)
    teacher = ("--teacher", f"local-dir:{tiny_clip}")
    run_cli("plan", *teacher, *words, "--samples", 5, "--json")
    assert said == document(capsys)


def test_what_does_not_pay_is_said(tiny_clip: Path, capsys) -> None:
    run_cli(
        "plan", "--samples", 2500, "--teacher", f"local-dir:{tiny_clip}", "--student-rate", 100,
        "--teacher-rate", 1000, "--epochs", 40, "--views", 40, "--read-bandwidth", 1e6, "--json",
    )  # fmt: skip
    heard = capsys.readouterr()
    output, said = heard.err, json.loads(heard.out)
    assert "does not pay: caching 40 views runs the teacher as often as 40 epochs" in output
    assert "caching pays" not in output
    assert said["pays"] is False
    assert len(said["why"]) == 1
    assert "saved:" not in output
    assert said["saved_hours"] < 0
    assert said["fits"] is None
    assert said["break_even_epochs"] is None


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_measuring(tiny_clip: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = [
        TeacherSpeed(precision=name, batch=batch, rate=rate, cosine=cosine)
        for name, batch, rate, cosine in (
            ("fp32", 2, 10.0, 1.0), ("fp32", 4, 12.0, 1.0), ("bf16", 2, 30.0, 0.9999),
            ("fp16", 2, 40.0, 0.9),
        )
    ]  # fmt: skip
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    config = configured(
        "plan", "--samples", "2500", "--teacher", f"local-dir:{tiny_clip}", "--measure",
        "--precision", precision, "--device", "cpu",
    )  # fmt: skip
    found = PlanReport(config, measure=lambda *_, **__: iter(speeds))
    output, said = "\n".join(found.lines()), found.document()
    settled, rate = ("bf16", 30.0) if precision == "auto" else ("fp32", 12.0)
    assert (said["teacher_precision"], said["teacher_rate"]) == (settled, rate)
    assert said["teacher_hours"] == pytest.approx(2500 / rate / 3600)
    assert f"hours: --precision {settled}" in output
    assert ("faster: --precision bf16, 30 images/s" in output) == (precision == "fp32")


def test_the_teacher_s_options_change_what_is_planned(tiny_clip: Path, capsys) -> None:
    words = ("plan", "--samples", 5, "--teacher", f"local-dir:{tiny_clip}", "--json")
    options = (
        "--precision", "fp16", "--layers", 2, "--prior", "uniform", "--teacher-norm", "imagenet",
    )  # fmt: skip
    run_cli(*words, "--precision", "fp32")
    plain = document(capsys)
    run_cli(*words, *options)
    assert document(capsys)["store_bytes"] != plain["store_bytes"]
    run_cli(*words, "--layers", 99, code=2)


def test_the_tower_is_timed(tiny_clip: Path, capsys) -> None:
    run_cli(
        "plan", "--samples", 2500, "--teacher", f"local-dir:{tiny_clip}", "--measure",
        "--measure-batch", 2, "--measure-seconds", 0, "--device", "cpu",
    )  # fmt: skip
    output = capsys.readouterr().out
    assert "teacher in fp32, batch 2: " in output
    assert "teacher in bf16, batch 2: " in output
    assert "mean cosine to fp32 1.00000" in output


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--samples", 5, "--images", "x"),
        ("--samples", 0),
        ("--samples", 5, "--views", 0),
        ("--samples", 5, "--grid", 1000000),
        ("--samples", 5, "--codec", "pq"),
        ("--samples", 5, "--measure", "--teacher-rate", 3),
        ("--samples", 5, "--student-rate", 0),
        ("--samples", 5, "--read-bandwidth", "nan"),
        ("--samples", 5, "--measure", "--measure-batch", 0),
    ],
)
def test_wrong_values_are_wrong_usage(tiny_clip: Path, words: tuple[object, ...]) -> None:
    run_cli("plan", "--teacher", f"local-dir:{tiny_clip}", *words, code=2)


def test_more_shards_than_can_be_computed_with_are_refused(tiny_clip: Path, capsys) -> None:
    run_cli("plan", "--teacher", f"local-dir:{tiny_clip}", "--samples", 10**12, code=2)
    assert "give fewer, or more --samples-per-shard" in capsys.readouterr().err
