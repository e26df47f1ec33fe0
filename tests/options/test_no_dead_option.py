"""No option is dead: content changes the output, execution does not, and each is shown to.

Its 300 runs are a quarter of all tests' time, so they are slow ones, and so are those
that show that a dead option is found; what the tables must hold is looked at by default.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator
from types import SimpleNamespace

import open_clip
import pytest
import torch

from milan_pipeline.planning import teacher_speed
from tests.options.kinds import (
    FITTING,
    Decides,
    Differs,
    Entry,
    Exempt,
    Grows,
    Same,
    Settings,
    Table,
)
from tests.options.places import Places
from tests.options.running import Runner, config_classes
from tests.options.showing import DEAD, Shown, joint_changes
from tests.options.tables import TABLES
from tests.support.clip import TINY_CLIP
from tests.support.disturbances import one_rate_for_all_layers
from tests.support.servers import FakeSlurm

MOST_EXEMPT = 0.1
FIXTURES = {
    "pictures": "pictures", "images": "image_shards", "clip": "tiny_clip",
    "store": "target_store", "targets": "target_shards",
}  # fmt: skip
BY_NAME = {table.command: table for table in TABLES}
ALONE = [
    pytest.param(table, name, entry, id=f"{table.command}-{name}")
    for table in TABLES
    for name, entry in table.all_entries()
    if not isinstance(entry, Same | Exempt)
]
TOGETHER = [
    pytest.param(table, *group, id=f"{table.command}-{number}")
    for table in TABLES
    for number, group in enumerate(joint_changes(table))
]


@pytest.fixture(scope="module")
def shown(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """A world for all runs: Slurm's commands, a teacher with a name, a clock that tells no time.

    What is compiled is traced as ever, and then run by torch as it stands: no compiler takes its
    minute, and not a bit may change.
    """
    folder = tmp_path_factory.mktemp("options")
    (folder / "slurm").mkdir()
    FakeSlurm(folder / "slurm")
    known = {name: request.getfixturevalue(fixture) for name, fixture in FIXTURES.items()}
    places = Places(
        folder / "places", known, scheduler=lambda *_: request.getfixturevalue("scheduler")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_SLURM", str(folder / "slurm"))
        patch.setenv("PATH", f"{folder / 'slurm'}{os.pathsep}{os.environ['PATH']}")
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-of-options", TINY_CLIP)
        seconds = SimpleNamespace(perf_counter=itertools.count().__next__)
        patch.setattr(teacher_speed, "time", seconds)
        compiled = functools.partialmethod(torch.nn.Module.compile, backend="eager")
        patch.setattr(torch.nn.Module, "compile", compiled)
        yield Shown(Runner(folder / "runs", places))


@pytest.mark.parametrize("command", sorted(config_classes()))
def test_every_option_has_an_entry(command: str) -> None:
    """A new option needs one line in its command's table, of a kind that fits its role."""
    fields = dataclasses.fields(config_classes()[command])
    assert {field.name for field in fields} == set(BY_NAME[command].entries)
    roles = {field.name: field.metadata["role"] for field in fields}
    for name, entry in BY_NAME[command].all_entries():
        assert isinstance(entry, FITTING[roles[name]]), name


def test_few_are_exempt_and_say_why() -> None:
    entries = [entry for table in TABLES for _, entry in table.all_entries()]
    exempt = [entry for entry in entries if isinstance(entry, Exempt)]
    assert len(exempt) < MOST_EXEMPT * sum(len(table.entries) for table in TABLES)
    assert all(len(entry.reason.split()) > 3 for entry in exempt)


@pytest.mark.slow
@pytest.mark.parametrize(("table", "name", "entry"), ALONE)
def test_it_is_alive(shown: Shown, table: Table, name: str, entry: Entry) -> None:
    assert shown.objection(table, name, entry) is None


@pytest.mark.slow
# torch looks at gradients that are none while it traces what is compiled.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(("table", "given", "changes", "within"), TOGETHER)
def test_execution_leaves_the_output_as_it_is(
    shown: Shown, table: Table, given: Settings, changes: Settings, within: float
) -> None:
    assert shown.objection_to_all(table, given, changes, within) is None


@pytest.mark.slow
def test_what_is_dead_is_found(shown: Shown) -> None:
    """Each kind of entry objects to what it does not fit: here every one of them is wrong."""
    table = BY_NAME["pretrain"]
    wrong: dict[str, Entry] = {
        "seed": Differs(0),
        "max_steps": Grows(99),
        "workers": Decides(0, said=""),
    }
    for name, entry in wrong.items():
        assert shown.objection(table, name, entry) is not None, name
    for name, said in (("max_bad_fraction", "another reason"), ("on_missing", "for no reason")):
        (entry,) = (entry for known, entry in table.all_entries() if known == name)
        assert isinstance(entry, Decides)
        objection = shown.objection(table, name, dataclasses.replace(entry, said=said))
        assert objection is not None, name
    assert shown.objection_to_all(table, {}, {"workers": 0, "seed": 1}, 0.0) is not None


@pytest.mark.slow
def test_the_fault_that_this_is_for_is_found(shown: Shown) -> None:
    """Every group of weights once learnt at one rate, whatever --layer-decay was."""
    anew = Shown(shown.runner)  # whose base is run with the fault, too
    for command in ("finetune", "segment"):
        with one_rate_for_all_layers():
            objection = anew.objection(BY_NAME[command], "layer_decay", Differs(0.9))
        assert objection is not None, command
        assert DEAD in objection
