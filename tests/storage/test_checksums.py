"""Weights lie beside their hashes; a flipped bit is refused by name, a missing list said once."""

import subprocess
from pathlib import Path

import pytest

from milan_pipeline.core.console import NOTE
from milan_pipeline.encoders.load import fingerprint, load_encoder
from milan_pipeline.errors import DataError
from milan_pipeline.storage.checksums import put_with_sums, read_checked
from tests.support.students import write_encoder

FILES = {"encoder.safetensors": b"weights", "encoder.json": b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put_with_sums(str(tmp_path), FILES)
    return tmp_path


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    write_encoder(tmp_path)
    return tmp_path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_what_was_written_is_read_without_a_word(folder, caplog) -> None:
    caplog.set_level(NOTE)
    for name, data in FILES.items():
        assert read_checked(str(folder / name)) == data
    assert caplog.messages == []


def test_the_list_is_one_of_sha256sum(folder) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "encoder.sha256"], cwd=folder, check=True)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_by_name(folder, name) -> None:
    flip(folder / name)
    with pytest.raises(DataError, match=rf"/{name} is not the file that .*/encoder\.sha256"):
        read_checked(str(folder / name))


def test_a_file_that_its_list_does_not_name_is_refused(folder) -> None:
    (folder / "encoder.sha256").write_text(f"{'0' * 64}  other.safetensors\n")
    with pytest.raises(DataError, match=r"encoder\.safetensors is not the file"):
        read_checked(str(folder / "encoder.safetensors"))


@pytest.mark.parametrize("text", [b"nonsense", b"\xff", b"\n\n"])
def test_a_list_that_is_none_is_refused(folder, text) -> None:
    (folder / "encoder.sha256").write_bytes(text)
    with pytest.raises(DataError, match=r"encoder\.sha256 lists no hashes"):
        read_checked(str(folder / "encoder.safetensors"))


def test_a_missing_list_is_said_once(folder, caplog) -> None:
    caplog.set_level(NOTE)
    (folder / "encoder.sha256").unlink()
    for _ in range(2):
        assert read_checked(str(folder / "encoder.safetensors")) == b"weights"
    assert caplog.text.count("encoder.safetensors has no hash beside it") == 1


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json"])
def test_a_flipped_bit_reaches_no_encoder(exported, name) -> None:
    load_encoder(str(exported))
    path = exported / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    for read in (load_encoder, fingerprint):
        with pytest.raises(DataError, match=rf"{name} is not the file"):
            read(str(exported))
