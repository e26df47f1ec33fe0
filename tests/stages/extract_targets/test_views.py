"""Views with changed colours, clean ones for the teacher, and views of another store."""

import dataclasses
from pathlib import Path

import pytest
import torch

from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.viewed_pairs import PairDataset
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.views import settled_views
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.store import open_targets
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.cli import extract_targets, run_cli

COLOURS = "random-resized-crop:jitter=0.9,blur=0.5,solarise=0.5"


@pytest.fixture(scope="module")
def stores(image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory):
    """Of what the teacher sees: a store with colours, and its shards."""
    folder = tmp_path_factory.mktemp("colours")
    made: dict[str, tuple[Path, Path]] = {}
    for sees in ("view", "clean"):
        store, shards = folder / f"{sees}.zarr", folder / f"{sees}-shards"
        views = ("--view-policy", COLOURS) if sees == "view" else ("--views-from", made["view"][1])
        extract_targets(
            image_shards, tiny_clip, store, *views, "--teacher-sees", sees, "--precision", "fp32"
        )
        run_cli("pack-targets", "--targets", store, "--out", shards)
        made[sees] = store, shards
    return made


@pytest.fixture(scope="module")
def plain(image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "targets.zarr"
    extract_targets(image_shards, tiny_clip, out, "--precision", "fp32")
    return out


@pytest.fixture(scope="module")
def teacher(tiny_clip: Path) -> Teacher:
    return Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}", precision="fp32"))


@pytest.mark.parametrize("sees", ["view", "clean"])
def test_the_student_sees_the_stored_colours_and_the_teacher_what_it_was_told_to(
    sees: str, stores, plain: Path, image_shards: Path, teacher: Teacher
) -> None:
    coloured = list(PairDataset(images=str(image_shards), targets=str(stores[sees][1])))
    other = list(PairDataset(images=str(image_shards), targets=str(stores["view"][1])))
    both = zip(coloured, other, strict=True)
    assert all(torch.equal(ours.pixels_CSS, theirs.pixels_CSS) for ours, theirs in both)
    stored = torch.stack([pair.tokens_ND for pair in coloured])
    seen = torch.stack([pair.pixels_CSS for pair in coloured])
    of_the_view = teacher(seen)[0].half().float()
    units = open_targets(str(plain))
    clean = torch.cat([torch.from_numpy(units.read(*unit).tokens_nND) for unit in units.units])
    differ = (of_the_view - clean).abs().amax((1, 2)) > 0.01
    assert differ.float().mean() > 0.8  # the colours of most views change
    expected = of_the_view if sees == "view" else clean
    torch.testing.assert_close(stored, expected, atol=2e-3, rtol=0)


def test_crops_are_those_without_colours(stores, plain: Path) -> None:
    ours, theirs = (open_targets(str(at)) for at in (stores["view"][0], plain))
    for unit in theirs.units:
        assert (ours.read(*unit).box[:, :4] == theirs.read(*unit).box).all()
        assert ours.read(*unit).box.shape[1] == 11
    assert "colours" not in read_identity(str(plain))["view_policy"]


def test_a_store_with_colours_is_sound_and_keeps_them_where_it_is_transcoded(
    stores, image_shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    store = stores["clean"][0]
    run_cli("verify", store, "--images", image_shards, "--teacher", f"local-dir:{tiny_clip}",
            "--sample", 6)  # fmt: skip
    run_cli("transcode", store, tmp_path / "int8.zarr", "--codec", "int8")
    run_cli("verify", tmp_path / "int8.zarr")


def test_the_page_of_a_store_with_colours_says_which_views_have_others(
    stores, image_shards: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    run_cli("inspect", stores["view"][1], "--html", page, "--images", image_shards)
    assert 0 < page.read_text().count(", in other colours") < 24


def test_one_student_learns_from_teachers_of_which_one_sees_clean_views(
    stores, image_shards: Path
) -> None:
    data = open_run_data(
        str(image_shards),
        {name: str(shards) for name, (_, shards) in stores.items()},
        views=None,
        on_missing="error",
        order=OrderChoice(batch=8, lanes=4, block=5, seed=0),
    )
    assert [each.name for each in data.teachers] == ["clean", "view"]


def options(**changes: object) -> ExtractTargets:
    return ExtractTargets(images="i", out="o", teacher="t", **changes)  # type: ignore[arg-type]


def test_views_of_another_store_are_the_options_that_it_was_made_with(stores) -> None:
    for place in stores["clean"]:
        found = settled_views(options(views_from=str(place)))
        assert found == options(view_policy=COLOURS, views=1)
    assert settled_views(found) is found
    assert settled_views(options()).views == 1


def test_there_are_as_many_views_as_in_the_other_store_unless_another_number_is_given(
    target_store: Path, target_shards: Path
) -> None:
    for place in (target_store, target_shards):
        assert settled_views(options(views_from=str(place))).views == 2
        assert settled_views(options(views_from=str(place), views=3)).views == 3


def test_shards_that_are_not_all_packed_do_not_tell_how_many_views_there_are(
    target_shards: Path, tmp_path: Path
) -> None:
    manifest = load_manifest(str(target_shards), kind="targets")
    part = dataclasses.replace(
        manifest, folder=str(tmp_path), shards=manifest.shards[:1], complete=False
    )
    part.save()
    with pytest.raises(MismatchError, match="run its pack-targets again, or give --views"):
        settled_views(options(views_from=str(tmp_path)))
    assert settled_views(options(views_from=str(tmp_path), views=2)).views == 2


def test_clean_views_of_targets_without_colours_are_refused(target_store: Path) -> None:
    with pytest.raises(ConfigError, match="changes nothing; leave it out, or give targets of"):
        settled_views(options(views_from=str(target_store), teacher_sees="clean"))


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("--view-seed 3 and --views-from s both say", {"views_from": "s", "view_seed": 3}),
        ("has 'jitter=2'; give probabilities", {"view_policy": "random-resized-crop:jitter=2"}),
        ("has 'sepia=1'", {"view_policy": "random-resized-crop:sepia=1"}),
        ("center has no colours", {"view_policy": "center:grey=1"}),
        ("has ''; give probabilities", {"view_policy": "center:", "views": 4}),
        ("center gives one view", {"view_policy": "center", "views": 4}),
        ("has jitter twice", {"view_policy": f"{COLOURS},{COLOURS.partition(':')[2]}"}),
        ("clean needs changes of colours", {"teacher_sees": "clean"}),
        ("view policy 'zoom' is unknown", {"view_policy": "zoom"}),
    ],
)
def test_what_does_not_fit_is_refused(said: str, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=said):
        options(**changes)
