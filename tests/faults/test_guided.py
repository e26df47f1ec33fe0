"""Guided fuzzing: sound inputs are no failures, wrong readers are, and mended sums fit."""

import io

import pytest

from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.images import decode
from milan_pipeline.shards import tar_stream
from tests.faults.guided import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass_and_fit(name: str) -> None:
    target = TARGETS[name]
    for title, data in target.seeds().items():
        target.judge(data)
        assert target.mend(data) == data, title
        assert len(data) <= target.most, title


def test_mended_headers_are_read() -> None:
    """A name that was changed is refused by its checksum, and read once that fits."""
    target = TARGETS["tars"]
    data = target.seeds()["format-0.tar"].replace(b"a.jpg\0", b"z.jpg\0", 1)

    def names(tar: bytes) -> list[str]:
        file = tar_stream.HashingFile(io.BytesIO(tar))
        return [name for name, _, _ in tar_stream.stream_members(file, "it", [])]

    with pytest.raises(DataError):
        names(data)
    assert names(target.mend(data))[0] == "z.jpg"


def test_mended_chunks_are_read() -> None:
    target = TARGETS["images"]
    data = target.seeds()["PNG-plain"]
    at = data.index(b"IHDR") + 7  # the lowest byte of the width
    wrong = data[:at] + bytes([data[at] - 1]) + data[at + 1 :]
    with pytest.raises(BadImageError):
        decode.decode_rgb(wrong)
    assert decode.probe_header(target.mend(wrong))[1] == decode.probe_header(data)[1] - 1


def test_wrong_readers_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    tar = TARGETS["tars"].seeds()["format-1.tar"]
    with monkeypatch.context() as patch:
        patch.setattr("tests.faults.guided.members_of", lambda _: [("a.jpg", b"x", 0)])
        with pytest.raises(AssertionError):
            TARGETS["tars"].judge(tar)
    image = TARGETS["images"].seeds()["PNG-plain"]
    with monkeypatch.context() as patch:
        patch.setattr(
            "tests.faults.decoding.decode_rgb", lambda data: decode.decode_rgb(data)[::-1]
        )
        with pytest.raises(AssertionError, match="unlike"):
            TARGETS["images"].judge(image)
