"""What YAML would change or drop is refused with its line; what it would not is read."""

from pathlib import Path

import pytest

from milan_pipeline.cli.recipes import read_options, read_sections, read_yaml
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.pretrain.command import Pretrain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("probe: {k: 1}\nindex:\nprobe:\n", "line 3 gives 'probe', which line 1 gives already"),
        ("index:\n  a: 1\n  a: 1\n", "line 3 gives 'a', which line 2 gives already"),
        ("mask-ratio: 1\nmask_ratio: 2\n", "line 2 gives 'mask_ratio', which line 1 gives"),
        ("seed: 010\n", "line 1 has 010, which YAML reads as 8; put it in quotes .*write 8$"),
        ("\ntime: 24:00:00\n", "line 2 has 24:00:00, which YAML reads as 86400"),
    ],
)
def test_what_yaml_would_change_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.yaml: {said}"):
        read_yaml(path)


def test_a_fraction_that_names_something_stays_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("label: 1.10\nbase-lr: 1.0e-3\n")
    assert read_options(path, Finetune, "finetune") == {"label": "1.10", "base_lr": "1.0e-3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets: []", "'targets' is an empty list; give a value, or take the key out"),
        ("targets: {a: b}", r"'targets' takes no mapping; write a list of texts, as \['a=b'\]"),
    ],
)
def test_what_gives_no_list_of_values_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_options(path, Pretrain, "pretrain")


def test_what_is_merged_may_be_given_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "pretrain: &one {epochs: +3, seed: 1_000}\n"
        "finetune: &two {<<: *one, epochs: 4}\n"
        "probe: {<<: *two, epochs: -5}\n"
    )
    assert read_sections(path) == {
        "pretrain": {"epochs": 3, "seed": 1000},
        "finetune": {"epochs": 4, "seed": 1000},
        "probe": {"epochs": -5, "seed": 1000},
    }
