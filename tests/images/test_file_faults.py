"""How names of files are shown in sentences."""

import os

from milan_pipeline.images.file_faults import shortened


def test_text_that_is_shown_fits_a_line():
    assert shortened("a" * 100, 10) == "aaaaaaaaa…"
    assert shortened("a\nb\tc") == r"a\nb\tc"
    shortened(os.fsdecode(b"\xff.jpg")).encode()
