"""The virtual store counts what s3fs sends, and forgets nothing that it is given."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.virtual_store import Bucket, Made, open_bucket
from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError
from tests.support.servers import BUCKET, S3Server, s3_server

__all__ = ["s3_server"]
KINDS = {"PUT": "puts", "GET": "gets", "HEAD": "heads", "DELETE": "deletes"}


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with open_bucket("tests") as opened:
        yield opened


def use(base: str) -> list[Any]:
    """Do with a store what the library does; return what it said."""
    for name in ("a/1", "a/2", "a/b/3"):
        storage.put_bytes(f"{base}/{name}", name.encode() * 10)
    with storage.atomic_writer(f"{base}/tar") as stream:
        stream.write(b"tar" * 100)
    storage.put_bytes(f"{base}/empty", b"")
    answers: list[Any] = [
        storage.read_bytes(f"{base}/a/1"),
        storage.read_bytes(f"{base}/a/2", 3, 7),
        storage.read_bytes(f"{base}/empty"),
        storage.exists(f"{base}/a/1"),
        storage.exists(f"{base}/none"),
        storage.size_of(f"{base}/a/b/3"),
        storage.list_names(f"{base}/a"),
        storage.list_names(f"{base}/none"),
        storage.list_tree(f"{base}/a"),
        storage.list_tree(f"{base}/none"),
    ]
    with storage.open_read(f"{base}/tar") as stream:
        answers.append(stream.read())
    with pytest.raises(MissingDataError):
        storage.read_bytes(f"{base}/none")
    return answers


@pytest.mark.slow
def test_it_sends_the_requests_of_s3fs(
    s3_server: S3Server, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put_bytes(f"{BUCKET}/first", b"first")
    caplog.clear()
    with caplog.at_level("INFO", "werkzeug"):
        there = use(f"{BUCKET}/data")
    sent = Counter(
        "lists" if "list-type" in message else KINDS[word]
        for message in caplog.messages
        for word in KINDS
        if f"{word} /" in message
    )
    assert use(f"{bucket.url}/data") == there
    assert bucket.kinds == sent
    assert bucket.written == dict.fromkeys(
        ("data/a/1", "data/a/2", "data/a/b/3", "data/tar", "data/empty"), 1
    )


def test_made_objects_are_listed_by_pages_and_read(bucket: Bucket) -> None:
    names = [f"{number:05d}" for number in range(2500)]
    bucket.folders["done/view"] = Made(names, lambda name: {"00003": b"three"}[name])
    assert storage.list_names(f"{bucket.url}/done/view") == names
    assert storage.list_names(f"{bucket.url}/done") == ["view"]
    assert bucket.requests.lists == 4
    assert storage.read_bytes(f"{bucket.url}/done/view/00003", 1, 2) == b"hr"
    with pytest.raises(MissingDataError):
        storage.read_bytes(f"{bucket.url}/done/view/4")
    assert bucket.requests.gets == 2
    assert bucket.ranges == [2, 0]
    assert bucket.waited == pytest.approx(0.6)
    assert bucket.requests.price() == pytest.approx((4 * 0.005 + 2 * 0.0004) / 1000)
