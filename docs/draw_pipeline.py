"""The picture of the pipeline, docs/pipeline.svg: what each command reads and writes.

`make pictures` draws it again; a test holds the file equal to this code.
"""

from pathlib import Path

PICTURE = Path(__file__).with_name("pipeline.svg")
BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 132, 54, 84, 16
ROW_HEIGHT, SIZE = 104, 13
# Each row: things on disk, and between them the commands that make the next one of the last.
ROWS = (
    (
        (("photographs", "a folder"), "pack-images"),
        (("image shards", "tar files"), "extract-targets"),
        (("target store", "Zarr: CLIP's features"), "pack-targets"),
        (("target shards", "tar files"), None),
    ),
    (
        (("shards", "images + targets"), "pretrain"),
        (("run", "encoder, checkpoints"), "probe"),
        (("scores", "k-NN, linear"), "compare"),
        (("one table", "of all results"), None),
    ),
)
NOTES = (
    "Top: CLIP runs once, in extract-targets. status, verify, codecs, transcode look at the store.",
    "Bottom: no CLIP here. finetune, segment and export start from a run, too; inspect shows all.",
)
STYLE = (
    f"text {{ font: {SIZE}px sans-serif; text-anchor: middle; fill: #1c2024; }} "
    ".small { font-size: 11px; fill: #5a6370; } .command { font: 11px monospace; fill: #005a9c; } "
    ".note { text-anchor: start; font-size: 12px; fill: #5a6370; }"
)


def picture() -> str:
    """Return the picture as SVG: a row for targets, one for students, two lines of notes."""
    width = 2 * MARGIN + 4 * BOX_WIDTH + 3 * GAP
    height = 2 * MARGIN + len(ROWS) * ROW_HEIGHT + len(NOTES) * 18 - MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>photographs, image shards, target store, target shards, run, scores</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#f7f8f9"/>',
    ]
    for number, row in enumerate(ROWS):
        for place, (thing, command) in enumerate(row):
            left, top = MARGIN + place * (BOX_WIDTH + GAP), MARGIN + 8 + number * ROW_HEIGHT
            lines += _box(left, top, *thing)
            if command is not None:
                lines += _arrow(left + BOX_WIDTH, top, command)
    top = MARGIN + len(ROWS) * ROW_HEIGHT
    lines += [_text(MARGIN, top + 18 * line, note, "note") for line, note in enumerate(NOTES)]
    return "\n".join([*lines, "</svg>", ""])


def _box(left: int, top: int, name: str, what: str) -> list[str]:
    middle = left + BOX_WIDTH // 2
    size = f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"'
    return [
        f'<rect x="{left}" y="{top}" {size} fill="#ffffff" stroke="#aab2bd"/>',
        _text(middle, top + 23, name),
        _text(middle, top + 41, what, "small"),
    ]


def _arrow(left: int, top: int, command: str) -> list[str]:
    middle, end = top + BOX_HEIGHT // 2, left + GAP
    shaft = f"M{left + 6} {middle}H{end - 8}m-6 -4 6 4 -6 4"
    return [
        f'<path d="{shaft}" fill="none" stroke="#005a9c" stroke-width="1.5"/>',
        _text(left + GAP // 2, middle + 40, command, "command"),
    ]


def _text(x: int, y: int, text: str, kind: str = "name") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{text}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
