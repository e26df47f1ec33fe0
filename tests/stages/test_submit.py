"""`submit`: which jobs a recipe makes, what is left of them, and what Slurm is told."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from milan_pipeline.targets.marks.columns import Marks
from milan_pipeline.targets.units import read_marks
from tests.support.cli import run_cli
from tests.support.pictures import write_picture
from tests.support.pretrain import TINY_STUDENT
from tests.support.servers import FakeSlurm

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.12", reason="this torchrun cannot pass signals on, as `submit` says"
)
STUDENT = {
    word.removeprefix("--"): value
    for word, value in zip(map(str, TINY_STUDENT[::2]), TINY_STUDENT[1::2], strict=True)
}
TRAINING = {"batch-size": 8, "epochs": 1, "workers": 0}


@pytest.fixture
def recipe(tiny_clip: Path, tmp_path: Path) -> Path:
    document = {
        "extract-targets": {
            "teacher": f"local-dir:{tiny_clip}",
            "views": 2,
            "precision": "fp32",
            "batch-size": 4,
        },
        "pretrain": STUDENT | TRAINING,
        "finetune": TRAINING,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def unpacked(recipe, image_shards, tmp_path) -> tuple[object, ...]:
    """Words of a submission of everything."""
    return (recipe, "--images", image_shards, "--out", tmp_path / "out")


@pytest.fixture
def packed(recipe, unpacked, target_store, target_shards) -> tuple[object, ...]:
    """Words of a submission for which nothing but training is left."""
    document = yaml.safe_load(recipe.read_text())
    document["extract-targets"]["precision"] = "auto"  # the store's, whichever it was made in
    recipe.write_text(yaml.safe_dump(document))
    return (*unpacked, "--targets", target_store, "--target-shards", target_shards)


def submit(recipe: Path, images: Path, out: Path, *more: object, code: int = 0) -> None:
    run_cli("submit", recipe, "--images", images, "--out", out, *more, code=code)


def told(fake_slurm: FakeSlurm) -> list[str]:
    """What sbatch was told: the script's name, then the options that say when and how often."""
    lines = []
    for call in fake_slurm.calls:
        words = call.split()
        if words[0] == "sbatch":
            options = [word for word in words[2:-1] if not word.startswith("--kill")]
            lines.append(" ".join([Path(words[-1]).stem, *options]))
    return lines


def test_the_chain_is_submitted_each_job_after_the_one_before(
    recipe: Path, image_shards: Path, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    submit(recipe, image_shards, tmp_path / "out", "--val", image_shards, "--parts", 4)
    assert told(fake_slurm) == [
        "init",
        "extract --dependency=afterok:101 --array=0-3",
        "pack --dependency=afterok:102",
        "pretrain --dependency=afterok:103",
        "finetune --dependency=afterok:104",
    ]
    folder = tmp_path / "out/slurm"
    (kept,) = folder.glob("recipe-*.yaml")
    assert kept.read_bytes() == recipe.read_bytes()
    assert sorted(path.stem for path in folder.glob("*.sbatch")) == [
        "extract", "finetune", "init", "pack", "pretrain",
    ]  # fmt: skip
    assert (folder / "logs").is_dir()  # which sbatch does not make


@pytest.mark.parametrize(("name", "code"), [("a%j", 0), ("a\nb", 2)])
def test_names_of_folders_mean_themselves_in_scripts(
    unpacked, tmp_path, name, code, capsys
) -> None:
    run_cli("submit", *unpacked[:-1], tmp_path / name, "--dry-run", "--verbose", code=code)
    said = capsys.readouterr()
    if code:
        assert "which scripts of jobs cannot hold; give another" in said.err
    else:
        assert f"--output={tmp_path}/a%%j/slurm/logs/%x-%j.out" in said.out


def test_only_what_is_left_is_submitted(
    recipe: Path, image_shards: Path, tmp_path: Path, fake_slurm: FakeSlurm,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, images = tmp_path / "out", ("--images", image_shards)
    store, shards, run = out / "targets.zarr", out / "target-shards", out / "run"
    # Of six units the second of three parts has 1 and 4.
    for part in ("0/3", "2/3"):
        run_cli("extract-targets", "--config", recipe, *images, "--out", store, "--part", part)
    submit(recipe, image_shards, out, "--parts", 3)
    assert told(fake_slurm)[:2] == ["init", "extract --dependency=afterok:101 --array=1"]

    run_cli("extract-targets", "--config", recipe, *images, "--out", store)
    submit(recipe, image_shards, out)
    assert told(fake_slurm)[4:] == ["pack", "pretrain --dependency=afterok:105"]

    run_cli("pack-targets", "--targets", store, "--out", shards)
    words = (*images, "--targets", shards, "--out", run)
    run_cli("pretrain", "--config", recipe, *words)
    capsys.readouterr()
    submit(recipe, image_shards, out)
    assert "nothing to do, every stage is done" in capsys.readouterr().out
    assert len(told(fake_slurm)) == 6

    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("epochs: 1", "epochs: 2"))
    submit(other, image_shards, out, code=1)
    assert "--epochs 2 does not fit" in capsys.readouterr().err


def test_what_is_in_the_queue_is_not_submitted_again(
    recipe: Path, image_shards: Path, tmp_path: Path, fake_slurm: FakeSlurm,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    submit(recipe, image_shards, out, "--parts", 3)
    names = {
        path.stem: path.read_text().partition("--job-name=")[2].partition("\n")[0]
        for path in (out / "slurm").glob("*.sbatch")
    }
    # Task 1 has failed, so what waited for the array was cancelled.
    fake_slurm.queue = [f"102|0|{names['extract']}", f"102|2|{names['extract']}"]
    submit(recipe, image_shards, out, "--parts", 3)
    assert told(fake_slurm)[4:] == [
        "extract --array=1",
        "pack --dependency=afterok:105,afterany:102",
        "pretrain --dependency=afterok:106",
    ]
    # Its units are done by others, but an array with a failed task never succeeds as a whole.
    store = out / "targets.zarr"
    words = ("--images", image_shards, "--out", store, "--part", "1/3")
    run_cli("extract-targets", "--config", recipe, *words)
    submit(recipe, image_shards, out, "--parts", 3)
    assert told(fake_slurm)[7:] == [
        "pack --dependency=afterany:102",
        "pretrain --dependency=afterok:108",
    ]
    capsys.readouterr()
    submit(recipe, image_shards, out, "--parts", 2, code=2)
    assert f"--parts 2 is not what {names['extract']} in the queue has" in capsys.readouterr().err

    fake_slurm.queue = [f"104|N/A|{names['pretrain']}"]
    submit(recipe, image_shards, out, "--parts", 3)
    assert len(told(fake_slurm)) == 9
    said = capsys.readouterr().out
    assert "pretrain: 104 is in the queue already" in said
    assert f"pack: not submitted, as {names['pretrain']} is in the queue" in said


def test_the_marks_of_a_finished_store_are_read_once(
    packed: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = []

    def count(store: str, views: int, *, keep: bool = False) -> Marks:
        read.append(store)
        return read_marks(store, views, keep=keep)

    for module in ("stages.extract_targets.plan", "targets.status"):
        monkeypatch.setattr(f"milan_pipeline.{module}.read_marks", count)
    run_cli("submit", *packed, "--dry-run")
    assert "pretrain" in capsys.readouterr().out
    assert len(read) == 1


def test_a_dry_run_prints_the_scripts_with_the_sites_options(
    recipe: Path, image_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "account: vision\npartition: gpu\ncpus-per-task: 8\ntime: '24:00:00'\ngpus: 4\nnodes: 2\n"
        "sbatch: [--qos=low, 'pretrain:--time=48:00:00']\n"
        "container: apptainer exec --nv milan.sif\nsetup: [module load cuda]\n"
    )
    out = tmp_path / "an out"
    submit(recipe, image_shards, out, "--config", site, "--dry-run", "--verbose")
    said = capsys.readouterr().out
    assert not out.exists()
    scripts = {
        script.partition("/slurm/")[2].partition(".sbatch")[0]: script
        for script in said.split(f"# {out.parent}")[1:]
    }
    assert list(scripts) == ["init", "extract", "pack", "pretrain"]
    for job, script in scripts.items():
        syntax = subprocess.run(
            ["bash", "-n"], check=False, input=script, text=True, capture_output=True
        )
        assert syntax.stderr == ""
        for word in (
            "--account=vision",
            "--partition=gpu",
            "--qos=low",
            "--time=24:00:00",
            "--cpus-per-task=8",
        ):
            assert f"#SBATCH {word}\n" in script
        assert "\nmodule load cuda\n" in script
        assert "apptainer exec --nv milan.sif" in script
        assert ("#SBATCH --time=48:00:00\n" in script) == (job == "pretrain")
        assert ("--gpus-per-node=1" in script) == (job == "extract")
        assert re.search(rf"--config '{out}/slurm/recipe-\w{{8}}\.yaml'", script)
    assert "#SBATCH --gpus-per-node=4\n" in scripts["pretrain"]
    assert "#SBATCH --nodes=2\n" in scripts["pretrain"]
    assert "--nproc-per-node=4" in scripts["pretrain"]
    assert "--workers" not in scripts["pretrain"]  # the recipe has them


def test_a_job_that_trains_has_a_loader_for_each_core_unless_the_recipe_says_otherwise(
    recipe: Path, image_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(recipe.read_text())
    del document["pretrain"]["workers"]
    recipe.write_text(yaml.safe_dump(document))
    submit(recipe, image_shards, tmp_path / "out", "--dry-run", "--json")
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert "--workers auto" in document["jobs"]["pretrain"]
    assert document["waits_for"]["pretrain"] == "pack"
    assert "pretrain: after pack\n" in said.err
    assert "#SBATCH" not in said.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--sbatch", "qos=low"), "--sbatch 'qos=low' is no option of sbatch"),
        (("--sbatch", "pretrain:--array=1-3"), "sets what submit itself tells sbatch; leave it"),
        (("--sbatch", "-Jmine"), "sets what submit itself tells sbatch; leave it"),
        (("--setup", "module load 'cuda"), "is no shell (line 1: unexpected EOF"),
        (("--sbatch", "probe:--time=1"), "for one of init, extract, pack, pretrain, finetune"),
        (("--out", "s3://bucket/out"), "--out s3://bucket/out is no local folder"),
        (("--time", "86400"), "within quotes where it stands in a YAML file"),
        (("--parts", 0), "--parts 0 is below 1"),
        (("--container", "apptainer 'exec"), "No closing quotation"),
        (("--nodes", 3), "cannot be shared by 3 processes"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_submitted(
    packed, fake_slurm, words, error, capsys
):
    run_cli("submit", *packed, *words, code=2)
    assert error in capsys.readouterr().err
    assert told(fake_slurm) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("pretrain", {"processes": 2}), "has processes: 2 for pretrain, which torchrun starts"),
        (
            ("extract-targets", {"precision": "auto"}),
            "put precision: bf16 or fp32 into its section",
        ),
        (("pretrain", {"batch-size": 9}), "--lanes 1 cannot be shared by 2 processes"),
    ],
)
def test_a_recipe_that_jobs_would_refuse_is_refused_before_the_first(
    unpacked, recipe, change, error, capsys
) -> None:
    stage, options = change
    document = yaml.safe_load(recipe.read_text())
    document[stage] |= options
    recipe.write_text(yaml.safe_dump(document))
    run_cli("submit", *unpacked, "--gpus", 2, "--dry-run", code=2)
    assert error in capsys.readouterr().err


def test_sections_of_which_no_job_is_made_are_named(packed, recipe, fake_slurm, capsys) -> None:
    document = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump(document | {"probe": {}, "segment": {}}))
    run_cli("submit", *packed)
    assert "no job is made of the recipe's probe, segment" in capsys.readouterr().err
    assert told(fake_slurm) == ["pretrain"]


def test_a_recipe_that_transcodes_is_refused(packed, recipe, fake_slurm, capsys) -> None:
    document = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump(document | {"transcode": {"codec": "int8"}}))
    run_cli("submit", *packed, code=2)
    assert "has the section 'transcode', of which no job is made" in capsys.readouterr().err
    assert told(fake_slurm) == []


def test_sharding_over_processes_is_known_to_be_started(packed, recipe, fake_slurm) -> None:
    document = yaml.safe_load(recipe.read_text())
    document["pretrain"]["fsdp"] = True
    recipe.write_text(yaml.safe_dump(document))
    run_cli("submit", *packed, "--gpus", 2)
    assert told(fake_slurm) == ["pretrain"]


def test_a_recipe_without_pretraining_and_a_machine_without_slurm_are_refused(
    recipe: Path, image_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    less = tmp_path / "less.yaml"
    less.write_text(yaml.safe_dump({"extract-targets": {"teacher": "ViT-B-16"}}))
    submit(less, image_shards, tmp_path / "out", "--dry-run", code=2)
    assert "has no section 'pretrain'" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    submit(recipe, image_shards, tmp_path / "out", code=1)
    assert "sbatch is not on this machine's PATH" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["shards", "folder"])
def test_images_without_labels_are_refused_before_anything_is_submitted(
    unpacked: tuple[object, ...],
    tmp_path: Path,
    fake_slurm: FakeSlurm,
    form: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flat = tmp_path / "flat"
    for number in range(3):
        write_picture(flat / f"{number}.jpg", number)
    run_cli("pack-images", flat, tmp_path / "shards")
    val = {"shards": tmp_path / "shards", "folder": flat}[form]
    run_cli("submit", *unpacked, "--val", val, code={"shards": 1, "folder": 2}[form])
    error = capsys.readouterr().err
    assert str(val) in error
    assert {"shards": "no class number", "folder": "outside class folders"}[form] in error
    assert told(fake_slurm) == []
