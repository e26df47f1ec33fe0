"""PHI-S: every component has variance 1, distances keep their ratios, and it can be undone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import codec_of
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import OrderChoice
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.pretraining.phi_s import fit_phi_s, hadamard_matrix
from milan_pipeline.pretraining.phi_s_file import (
    PHI_S_FILE,
    in_proportion,
    keep_phi_s,
    kept_phi_s,
    read_phi_s,
    write_phi_s,
)
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.store import open_targets
from milan_pipeline.targets.store_record import finished_units, read_store_record
from tests.support.fitted import tokens
from tests.support.runs import Run


@pytest.mark.parametrize("size", [1, 2, 8, 12, 20, 24, 384, 768, 1152])
def test_all_entries_of_a_hadamard_matrix_are_alike(size):
    matrix = hadamard_matrix(size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(np.abs(matrix), size**-0.5)


@pytest.mark.parametrize("size", [3, 6, 36, 300])
def test_a_width_without_one_is_refused(size):
    with pytest.raises(ConfigError, match=f"width {size}; give --target-norm l2 or layer"):
        hadamard_matrix(size)


def test_every_component_has_mean_0_and_variance_1():
    sample = 40 * tokens(4000) + 7
    found = fit_phi_s(sample)(sample)
    torch.testing.assert_close(found.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.var(0, correction=0), torch.ones(12), atol=1e-4, rtol=0)


def test_distances_keep_their_ratios_and_it_can_be_undone():
    sample = tokens(200)
    phi_s = fit_phi_s(sample)
    ratio = torch.pdist(phi_s(sample)) / torch.pdist(sample)
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-3, atol=0)
    torch.testing.assert_close(phi_s.undo(phi_s(sample)), sample, atol=1e-5, rtol=1e-5)


def test_targets_that_are_alike_or_not_finite_are_refused():
    for sample in (torch.ones(5, 4), torch.full((5, 4), torch.nan), torch.randn(1, 4)):
        with pytest.raises(DataError, match="PHI-S cannot be fitted to"):
            fit_phi_s(sample)


# ---- beside target shards


@pytest.fixture(scope="module")
def folder(target_store: Path, target_shards: Path, tmp_path_factory: pytest.TempPathFactory):
    """The session's shards, listed where they lie, with PHI-S in a folder of its own."""
    out = tmp_path_factory.mktemp("phi-s")
    place = str(target_store)
    identity = read_identity(place)
    units = finished_units(
        place, identity, read_store_record(place, identity), views=None, allow_unfinished=False
    )
    codec = read_store_codec(place, identity)
    stated = write_phi_s(
        str(out), store=place, units=units, source=codec, target=codec, patches=16, sample="s",
        stop=StopRequest(),
    )  # fmt: skip
    manifest = load_manifest(str(target_shards), kind="targets")
    listed = [dataclasses.replace(each, name=manifest.url_of(each)) for each in manifest.shards]
    for each in manifest.shards:
        index = Path(manifest.index_url_of(each))
        (out / index.name).write_bytes(index.read_bytes())
    common = dict(manifest.common) | {"phi_s": stated}
    dataclasses.replace(manifest, folder=str(out), shards=tuple(listed), common=common).save()
    return out


def opened(images, targets, **changes):
    order = OrderChoice(batch=8, lanes=4, block=5, seed=0)
    return open_run_data(
        str(images), {"": str(targets)}, views=None, on_missing="error", order=order, **changes
    )


def test_targets_that_are_learnt_have_variance_1(folder, target_store, image_shards):
    decoder = opened(image_shards, folder, phi_s=True).targets()[""]
    store = open_targets(str(target_store))
    found = [store.read(*unit).tokens_nND for unit in store.units if unit[0] == 0]
    raw = torch.from_numpy(np.concatenate(found))
    learnt = decoder.decode(raw.half(), torch.empty(0)).flatten(0, 1)
    torch.testing.assert_close(learnt.var(0, correction=0), torch.ones(24), atol=1e-2, rtol=0)


def test_statistics_are_of_targets_as_the_shards_give_them(target_store, tmp_path):
    place = str(target_store)
    identity = read_identity(place)
    units = finished_units(
        place, identity, read_store_record(place, identity), views=None, allow_unfinished=False
    )
    source = read_store_codec(place, identity)
    stated = {}
    for codec in ("float16", "rotation:bits=2"):
        target = codec_of(parse_codec(codec).for_width(24).parameters())
        out = tmp_path / codec
        stated[codec] = write_phi_s(
            str(out), store=place, units=units, source=source, target=target, patches=16,
            sample="s", stop=StopRequest(),
        )  # fmt: skip
    means = [read_phi_s(str(tmp_path / codec), {"phi_s": stated[codec]}).mean_D for codec in stated]
    lengths = [float(mean.norm()) for mean in means]
    assert lengths[1] < 1 < lengths[0]  # the second keeps directions alone


def test_cls_counts_in_proportion():
    tokens_nMD = torch.arange(8.0)[:, None, None] + torch.tensor([100, 0, 0])[None, :, None]
    found = in_proportion(tokens_nMD, patches=8).flatten()
    assert found[:2].tolist() == [100, 104]  # two of eight patches are here, so two of eight CLS
    assert found[2:].tolist() == [n for n in range(8) for _ in range(2)]


def test_shards_without_it_and_damaged_ones_are_refused(folder, target_shards, image_shards):
    with pytest.raises(ConfigError, match=r"pack-targets --phi-s` into .*keeps its shards"):
        opened(image_shards, target_shards, phi_s=True)
    place = folder / PHI_S_FILE
    whole = place.read_bytes()
    try:
        place.write_bytes(whole[:-1] + b"\0")
        with pytest.raises(DataError, match=r"phi-s\.safetensors is damaged"):
            opened(image_shards, folder, phi_s=True)
        place.unlink()
        with pytest.raises(DataError, match=r"phi-s\.safetensors is missing; run .*--phi-s"):
            opened(image_shards, folder, phi_s=True)
    finally:
        place.write_bytes(whole)


def test_a_run_records_which_statistics_it_learnt_by(folder, image_shards, tmp_path):
    data, plain = opened(image_shards, folder, phi_s=True), opened(image_shards, folder)
    assert data.inputs == plain.inputs | {"phi_s": load_manifest(
        str(folder), kind="targets").common["phi_s"]["sha256"]}  # fmt: skip
    run = Run(data, tmp_path)
    run.train(total_steps=4, loss="mse", target_norm="phi-s")
    losses = [row["loss"] for row in run.log]
    assert 0.5 < losses[0] < 2  # of targets of variance 1
    assert losses[-1] < losses[0]


def test_a_runs_folder_keeps_it_by_teacher(tmp_path):
    inputs = {"targets": {"clip": {"phi_s": "1"}, "dino": {"phi_s": "2"}}}
    with pytest.raises(DataError, match="is missing; copy the run's folder again"):
        kept_phi_s(tmp_path, inputs)
    first, second = fit_phi_s(tokens(50)), fit_phi_s(tokens(50, width=8))
    keep_phi_s(tmp_path, {"clip": first, "dino": second})
    found = kept_phi_s(tmp_path, inputs)
    assert [len(each.mean_D) for each in found] == [12, 8]
    assert torch.equal(found[1].matrix_DD, second.matrix_DD)
    # That of another run, which was stopped before it began, is not taken.
    assert kept_phi_s(tmp_path, {"targets": {"clip": {}, "dino": {}}}) == []
    (tmp_path / PHI_S_FILE).write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        kept_phi_s(tmp_path, inputs)
