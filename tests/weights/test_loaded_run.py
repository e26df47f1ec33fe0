"""A finished run opens as the student that was trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.errors import MismatchError, MissingDataError
from milan_pipeline.models.decoder import PromptingDecoder
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.weights.loaded_run import load_run
from tests.support.pretrain import pretrain


def test_a_run_opens_with_its_decoder(
    image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    pretrain(image_shards, target_shards, tmp_path / "run", "--max-steps", 1, "--mask-ratio", 0.5)
    run = load_run(tmp_path / "run")
    assert (run.grid, run.patch_size, run.image_size, run.kept) == ((4, 4), 8, 32, 8)
    exported = load_file(tmp_path / "run" / "encoder.safetensors")
    assert all(
        torch.equal(run.student.encoder.state_dict()[name], exported[name]) for name in exported
    )
    order = torch.arange(16)
    view = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    pred_ND = run.predict(view, order[:8], order[8:])
    assert pred_ND.shape == (17, 24)
    hidden = view.clone()
    hidden[:, 16:] = 0  # the lower half, patches 8 to 15: masked, so it must not matter
    assert torch.equal(pred_ND, run.predict(hidden, order[:8], order[8:]))
    hidden[:, :8] = 0
    assert not torch.equal(pred_ND, run.predict(hidden, order[:8], order[8:]))


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no run"):
        load_run(tmp_path)


def test_a_run_without_a_decoder_is_refused(
    image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pretrain(image_shards, target_shards, run, "--max-steps", 1)
    config = json.loads((run / "config.json").read_text())
    config["content"].pop("student")
    (run / "config.json").write_bytes(record_bytes(config | {"stage": "finetune"}))
    with pytest.raises(MismatchError, match="is a run of finetune, which predicts no targets"):
        load_run(str(run))


@pytest.mark.parametrize("supervise", ["masked", "visible"])
def test_what_a_run_did_not_supervise_is_not_predicted(
    supervise: str, image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    options = ("--supervise", supervise, "--decoder", "linear", "--image-size", 32)
    pretrain(image_shards, target_shards, tmp_path / "run", "--max-steps", 1, *options)
    run = load_run(tmp_path / "run")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    view = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    pred_ND = run.predict(view, order[:4], order[4:])
    known = {int(place) for place in (~pred_ND.isnan().any(dim=1)).nonzero()}
    visible = {0, *(order[:4] + 1).tolist()}
    assert known == (visible if supervise == "visible" else set(range(17)) - visible)


def test_a_run_from_before_the_choices_opens_as_milans(
    image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    pretrain(image_shards, target_shards, tmp_path / "run", "--max-steps", 1)
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    for name in ("image_size", "decoder", "loss", "target_norm", "supervise", "masking"):
        del record["content"][name]
    path.write_bytes(record_bytes(record))
    run = load_run(tmp_path / "run")
    assert run.student.supervise == "all"
    assert type(run.student.decoder) is PromptingDecoder
    assert run.image_size == 32
