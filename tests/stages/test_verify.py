"""verify: every kind of damage is found in its unit; repair makes just those units again."""

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.stages.verify.checks import check_units
from milan_pipeline.stages.verify.command import Verify
from milan_pipeline.stages.verify.store import StoreParts
from milan_pipeline.storage.leftovers import temporary_name
from milan_pipeline.targets.units import Mark
from tests.support.cli import extract_targets, run_cli
from tests.support.clip import write_tiny_clip
from tests.support.damage import UNIT, change, flip_bit, open_unit, rehash, verify
from tests.support.remote import failing, noting, watched
from tests.support.stores import files_and_times, values_of

Damage = Callable[[Path], object]
ARRAYS = ("codes", "scale", "prior", "box", "flip", "size", "digest", "key")


@pytest.fixture(scope="module")
def int8_store(
    image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two views of the pictures' targets, as int8: every array that there can be."""
    out = tmp_path_factory.mktemp("int8") / "targets.zarr"
    words = ("--views", 2, "--codec", "int8", "--batch-size", 4, "--precision", "fp32")
    extract_targets(image_shards, tiny_clip, out, *words)
    return out


@pytest.fixture
def store(int8_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_store, tmp_path / "targets.zarr"))


def chunk_of(store: Path, name: str, unit: str = UNIT) -> Path:
    """The only object of an array's values."""
    (found,) = (path for path in (store / unit / name / "c").rglob("*") if path.is_file())
    return found


def set_first(value: Any) -> Callable[[Any], Any]:
    def edit(values: Any) -> Any:
        values[0] = value
        return values

    return edit


def swapped(values: Any) -> Any:
    values[[0, 1]] = values[[1, 0]]
    return values


def test_a_sound_store(store: Path, capsys) -> None:
    before = files_and_times(store)
    found, said = verify(store, capsys)
    assert (found["units"], found["targets"], found["faults"]) == (6, 48, {})
    assert found["live"]["targets"] == 8
    assert 0.999 < found["live"]["worst"] <= found["live"]["mean"] <= 1.00001
    assert found["live"]["prior_error"] < 1e-6
    assert found["fidelity"] is None
    assert "units: 6, not sound: 0; targets read: 48" in said
    assert files_and_times(store) == before


def flip(name: str) -> Damage:
    return lambda store: flip_bit(chunk_of(store, name))


def unlink(name: str) -> Damage:
    return lambda store: chunk_of(store, name).unlink()


def flip_and_rehash(name: str) -> Damage:
    def damage(store: Path) -> None:
        flip_bit(chunk_of(store, name))
        rehash(store)

    return damage


DAMAGES: dict[str, tuple[Damage, str]] = {
    **{f"bit of {name}": (flip(name), f"{name}/c/0") for name in ARRAYS},
    **{
        f"missing chunk of {name}": (unlink(name), f"{name}/c/0")
        for name in ("codes", "prior", "key")
    },
    "missing metadata of an array": (
        lambda store: (store / UNIT / "box" / "zarr.json").unlink(),
        "box/zarr.json is missing",
    ),
    "missing metadata of the unit": (
        lambda store: (store / UNIT / "zarr.json").unlink(),
        "zarr.json is missing",
    ),
    "truncated object": (
        lambda store: chunk_of(store, "codes").write_bytes(
            chunk_of(store, "codes").read_bytes()[:-9]
        ),
        "codes/c/0/0/0 is damaged",
    ),
    "broken checksum, good hash": (flip_and_rehash("prior"), "prior: "),
    "broken checksum of codes, good hash": (flip_and_rehash("codes"), "codes: "),
    "no mark": (lambda store: (store / "done" / f"{UNIT}.json").unlink(), "not done yet"),
    "damaged mark": (
        lambda store: (store / "done" / f"{UNIT}.json").write_text("{"),
        f"{UNIT}.json is damaged",
    ),
    "mark of other targets": (
        lambda store: edit_mark(store, identity_hash="0" * 64),
        "it was extracted with other parameters",
    ),
    "mark of another shard": (
        lambda store: edit_mark(store, sha256="0" * 64),
        "its image shard has changed",
    ),
    "mark of other counts": (lambda store: edit_mark(store, n=9), "has the shape (10, 17"),
    "mark without an object": (
        lambda store: edit_mark(
            store,
            objects={
                path: digest for path, digest in objects_of(store).items() if "prior/c" not in path
            },
        ),
        "prior: the mark does not know of prior/c/0/0",
    ),
    "mark of a strange object": (
        lambda store: edit_mark(store, objects=objects_of(store) | {"zzz": "0" * 32}),
        "zzz",
    ),
    "codes that are no numbers": (
        lambda store: change(store, "scale", set_first(np.nan)),
        "codes of samples 0 to 9 decode to no numbers",
    ),
    "prior that is no number": (
        lambda store: change(store, "prior", set_first(np.nan)),
        "prior of sample 0",
    ),
    "negative prior": (lambda store: change(store, "prior", set_first(-0.1)), "prior of sample 0"),
    "prior of zeros": (lambda store: change(store, "prior", set_first(0)), "prior of sample 0"),
    "prior above 1": (lambda store: change(store, "prior", set_first(0.5)), "prior of sample 0"),
    "box outside": (lambda store: change(store, "box", set_first(999)), "box of "),
    "box of nothing": (lambda store: change(store, "box", set_first(np.nan)), "box of "),
    "other flip": (lambda store: change(store, "flip", lambda flips: ~flips), "box of "),
    "no size": (lambda store: change(store, "size", set_first(0)), "size of "),
    "swapped keys": (lambda store: change(store, "key", swapped), "key is not the image shard's"),
    "key twice": (
        lambda store: change(store, "key", lambda keys: set_first(keys[1])(keys)),
        "key holds a key twice",
    ),
    "another image": (
        lambda store: change(store, "digest", set_first(7)),
        "digest is of another image under the key ",
    ),
    "skips a stranger": (
        lambda store: edit_mark(store, skipped=[{"key": "x", "reason": "r"}]),
        "the mark skips 'x'",
    ),
    "skips one of its keys": (
        lambda store: edit_mark(
            store, skipped=[{"key": str(values_of(open_unit(store), "key")[0]), "reason": "r"}]
        ),
        "key is not the image shard's list of keys: row 0",
    ),
}


def edit_mark(store: Path, **values: Any) -> None:
    place = store / "done" / f"{UNIT}.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | values))


def objects_of(store: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((store / "done" / f"{UNIT}.json").read_text())["objects"]
    return found


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found(store: Path, kind: str, capsys) -> None:
    damage, reason = DAMAGES[kind]
    damage(store)
    damaged = files_and_times(store)
    found, said = verify(store, capsys, "--sample", 0, code=1)
    assert list(found["faults"]) == [UNIT]
    assert any(reason in fault for fault in found["faults"][UNIT]), found["faults"]
    assert f"1 of 6 units of {store} is not sound ({UNIT}); --repair" in said
    assert files_and_times(store) == damaged


@pytest.mark.parametrize(
    "kind",
    ["missing metadata of the unit", "damaged mark", "mark of other targets", "swapped keys"],
)
def test_repair_makes_just_that_unit_again(
    int8_store: Path, store: Path, kind: str, capsys
) -> None:
    DAMAGES[kind][0](store)
    damaged, whole = files_and_times(store), files_and_times(int8_store)
    found, said = verify(store, capsys, "--repair")
    assert (found["faults"], found["repaired"]) == ({}, [UNIT])
    assert f"repaired: {UNIT}" in said
    repaired = files_and_times(store)
    assert {path: data for path, (data, _) in repaired.items()} == {
        path: data for path, (data, _) in whole.items()
    }
    touched = {path for path in repaired if repaired[path] != damaged.get(path)}
    # The view's group is put again with each of its units.
    theirs = (f"{UNIT}/", f"done/{UNIT}.json", "view-01/zarr.json")
    assert all(path.startswith(theirs) for path in touched)


def test_float_rounding_is_no_fault(target_store: Path, capsys) -> None:
    found, _ = verify(target_store, capsys, "--sample", 48, "--min-cosine", 1)
    assert found["faults"] == {}


def test_an_outage_while_repairing_leaves_the_other_units_as_they_were(store: Path, capsys) -> None:
    units = ("view-00/images-000001", UNIT)
    for unit in units:
        chunk_of(store, "codes", unit).unlink()
    before = [(store / "done" / f"{unit}.json").read_bytes() for unit in units]
    with failing("put", *[TimeoutError()] * 1000, at=f"/{units[0]}/"):
        run_cli("verify", watched(store), "--repair", code=1)
    after = [(store / "done" / f"{unit}.json").read_bytes() for unit in units]
    assert [then == now for then, now in zip(before, after, strict=True)] == [False, True]
    assert verify(store, capsys, "--repair")[0]["faults"] == {}


def test_codes_that_are_no_numbers_in_float16(target_store: Path, tmp_path: Path, capsys) -> None:
    store = Path(shutil.copytree(target_store, tmp_path / "targets.zarr"))
    change(store, "codes", set_first(np.nan))
    found, _ = verify(store, capsys, code=1)
    assert list(found["faults"]) == [UNIT]
    assert "decode to no numbers" in found["faults"][UNIT][0]


def test_a_view_s_group(store: Path, capsys) -> None:
    (store / "view-01" / "zarr.json").unlink()
    found, _ = verify(store, capsys, code=1)
    assert list(found["faults"]) == ["view-01/images-000000"]
    assert verify(store, capsys, "--repair")[0]["faults"] == {}


def test_what_no_mark_lists_is_harmless(store: Path, capsys) -> None:
    (store / UNIT / "codes" / "c" / "9").write_text("x")
    (store / UNIT / "more").write_text("x")
    (store / "view-00" / "stranger").mkdir()
    (store / UNIT / "codes" / temporary_name()).write_text("left over")
    found, said = verify(store, capsys)
    assert found["extra_names"] == 3
    assert "harmless: 3 names that no mark lists" in said
    assert found["leftovers"] == 1
    assert "left over: 1 temporary files of killed writers" in said


def test_no_mark_is_kept(store: Path) -> None:
    parts = StoreParts(Verify(store=str(store), sample=0))
    checked = check_units(parts, parts.units, StopRequest())
    assert not any(type(kept) is Mark for kept in gc.get_objects())
    assert (checked.faults, checked.targets_u.sum(), checked.extra) == ({}, 48, 0)


def test_a_unit_is_listed_once(store: Path, capsys) -> None:
    with noting("list") as listed:
        verify(watched(store), capsys)
    folders = [request.path for request in listed]
    assert folders.count(str(store / UNIT)) == 1


def test_targets_of_another_teacher(
    store: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    other = write_tiny_clip(tmp_path / "other", seed=1)
    strange = tmp_path / "strange.zarr"
    extract_targets(
        image_shards, other, strange, "--views", 2, "--codec", "int8", "--precision", "fp32",
    )  # fmt: skip
    for name in ("codes", "scale"):
        shutil.copy(chunk_of(strange, name), chunk_of(store, name))
    rehash(store)
    found, _ = verify(store, capsys, "--sample", 48, code=1)
    assert list(found["faults"]) == [UNIT]
    assert "to the live teacher's" in found["faults"][UNIT][0]
    assert found["live"]["worst"] < 0.9
    assert found["targets"] == 48 - len(values_of(open_unit(store), "key"))
    assert verify(store, capsys, "--sample", 0)[0]["live"] is None
    found, _ = verify(store, capsys, "--sample", 48, "--repair")
    assert found["repaired"] == [UNIT]
    assert found["live"]["worst"] > 0.99
    assert found["targets"] == 48


def test_a_stricter_bound(store: Path, capsys) -> None:
    found, _ = verify(store, capsys, "--min-cosine", 1, code=1)
    assert found["faults"]


def test_the_seed_draws_the_sample(store: Path, capsys) -> None:
    first, again, other = (
        verify(store, capsys, "--seed", seed)[0]["live"]["mean"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_store_in_bf16(image_shards: Path, tiny_clip: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "bf16.zarr"
    extract_targets(image_shards, tiny_clip, out, "--precision", "bf16")
    found, said = verify(out, capsys)
    assert 0.999 < found["fidelity"] < 1
    assert "bf16 against fp32: mean cosine 0.9999" in said


def test_a_precision_too_far_from_fp32_fails(image_shards: Path, tmp_path: Path, capsys) -> None:
    """Of a teacher whose attention is so sharp that bfloat16 looks elsewhere."""
    clip, out = write_tiny_clip(tmp_path / "clip"), tmp_path / "bf16.zarr"
    weights = load_file(clip / "open_clip_model.safetensors")
    for name in weights:
        if name.endswith("attn.in_proj_weight"):
            weights[name] *= 30
    save_file(weights, clip / "open_clip_model.safetensors")
    extract_targets(image_shards, clip, out, "--precision", "bf16")
    assert "extract with --precision fp32" in verify(out, capsys, code=1)[1]


def test_the_teacher_must_be_the_store_s(store: Path, tmp_path: Path, capsys) -> None:
    other = write_tiny_clip(tmp_path / "other", seed=1)
    run_cli("verify", store, "--teacher", f"local-dir:{other}", code=1)
    assert "teacher.weights_sha256 is " in capsys.readouterr().err


@pytest.fixture
def moved(store: Path, tmp_path: Path) -> Path:
    """A store whose record points at images and a teacher that are not there."""
    place = store / "extract-targets.json"
    record = json.loads(place.read_text())
    gone = {"images": str(tmp_path / "gone"), "teacher": f"local-dir:{tmp_path}/gone"}
    place.write_bytes(record_bytes(record | {"config": record["config"] | gone}))
    return store


def test_what_has_moved_must_be_said(
    moved: Path, image_shards: Path, tiny_clip: Path, capsys
) -> None:
    run_cli("verify", moved, code=1)
    assert "or --sample 0 to check only the store" in capsys.readouterr().err
    run_cli("verify", moved, "--images", image_shards, code=2)
    assert "is not here; give --teacher local-dir:PATH" in capsys.readouterr().err
    words = ("--images", image_shards, "--teacher", f"local-dir:{tiny_clip}")
    flip_bit(chunk_of(moved, "prior"))
    assert list(verify(moved, capsys, *words, code=1)[0]["faults"]) == [UNIT]
    assert verify(moved, capsys, *words, "--repair")[0]["faults"] == {}


def test_the_store_alone(moved: Path, capsys) -> None:
    found, said = verify(moved, capsys, "--sample", 0)
    assert (found["images_compared"], found["live"]) == (False, None)
    assert "were not compared with images" in said
    change(moved, "key", swapped)
    found, _ = verify(moved, capsys, "--sample", 0, code=1)
    assert "not the one that the view policy draws" in found["faults"][UNIT][0]


def test_a_changed_image_shard_is_left_to_extraction(
    store: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    shards = Path(shutil.copytree(image_shards, tmp_path / "shards"))
    tar = shards / "images-000001.tar"
    tar.write_bytes(tar.read_bytes() + bytes(512))
    run_cli("index", *sorted(shards.glob("*.tar")), "--out", tmp_path / "indexed")
    before = files_and_times(store)
    found, said = verify(store, capsys, "--images", tmp_path / "indexed", "--repair", code=1)
    assert sorted(found["faults"]) == ["view-00/images-000001", UNIT]
    assert found["repaired"] == []
    assert "extract-targets follows that" in said
    assert "--repair would not extract them again, as image shards are others" in said
    chunk_of(store, "codes", "view-00/images-000000").unlink()
    _, said = verify(store, capsys, "--images", tmp_path / "indexed", "--sample", 0, code=1)
    assert "--repair extracts 1 of them again, but not the others" in said
    assert {path for path, data in files_and_times(store).items() if data != before[path]} == set()


def test_an_image_shard_that_is_gone(
    store: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    tars = sorted(image_shards.glob("*.tar"))[:2]
    run_cli("index", *tars, "--out", tmp_path / "indexed")
    found, _ = verify(store, capsys, "--images", tmp_path / "indexed", code=1)
    assert found["faults"] == {
        f"view-0{view}/images-000002": ["its image shard is not in the images' manifest"]
        for view in range(2)
    }


def test_options_that_are_not_the_store_s_repair_nothing(store: Path, capsys) -> None:
    place = store / "extract-targets.json"
    record = json.loads(place.read_text())
    place.write_bytes(record_bytes(record | {"config": record["config"] | {"view_seed": 7}}))
    flip_bit(chunk_of(store, "prior"))
    before = files_and_times(store)
    run_cli("verify", store, "--repair", code=1)
    assert "view_policy.seed is 0 there and 7 here" in capsys.readouterr().err
    assert files_and_times(store) == before


def test_a_damaged_image_shard_is_named(
    store: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    shards = Path(shutil.copytree(image_shards, tmp_path / "shards"))
    tar = shards / "images-000002.tar"
    tar.write_bytes(bytes(len(tar.read_bytes())))
    found, _ = verify(store, capsys, "--images", shards, "--sample", 48, code=1)
    assert set(found["faults"]) == {"view-00/images-000002", "view-01/images-000002"}
    assert (
        "images-000002.tar is truncated or damaged" in found["faults"]["view-00/images-000002"][0]
    )


def test_no_store_and_no_record(store: Path, tmp_path: Path, capsys) -> None:
    run_cli("verify", tmp_path / "nowhere", code=1)
    (store / "extract-targets.json").unlink()
    run_cli("verify", store, code=1)
    assert "extract-targets.json does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--sample", -1), ("--min-cosine", 2), ("--workers", -1)])
def test_wrong_values_are_wrong_usage(store: Path, words: tuple[object, ...]) -> None:
    run_cli("verify", store, *words, code=2)
