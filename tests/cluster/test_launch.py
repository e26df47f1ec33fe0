"""A command line that gives the same options again."""

import dataclasses

from milan_pipeline.cluster.launch import words_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    base_lr: float = 1.5e-4
    fsdp: bool = True
    compile: bool = False
    max_steps: int | None = None


def test_every_option_is_given_but_those_without_a_value():
    assert words_of(Options()) == ["--base-lr", "0.00015", "--fsdp", "--no-compile"]
