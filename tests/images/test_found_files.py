"""Pictures in columns: as they were added, in few bytes."""

import tracemalloc

from milan_pipeline.images.found_files import Found, FoundFiles

FILES = [
    Found("cat/a.jpg", 3, "image"),
    Found("cat/lost.jpg", 0, "image", "a link to nothing"),
    Found("dog/b\udcff.tif", 1 << 40, "other"),
]


def test_pictures_come_back_as_they_were_added() -> None:
    found = FoundFiles(FILES)
    assert list(found) == FILES
    assert list(found.names) == [file.name for file in FILES]
    assert [found.kind(row) for row in range(3)] == ["image", "image", "other"]


def test_a_picture_takes_some_bytes_and_its_name() -> None:
    names = 20_000
    tracemalloc.start()
    found = FoundFiles(
        Found(f"class-{number % 100:03d}/{number:07d}.jpg", number, "image")
        for number in range(names)
    )
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == names
    assert size / names < 60
    assert peak / names < 90
