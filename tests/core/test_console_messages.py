"""What commands say, and how much of it: --quiet, --verbose, --debug, --json."""

import contextlib
import dataclasses
import json
import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import option
from milan_pipeline.core import console
from milan_pipeline.errors import DataError, StorageError

LOG = logging.getLogger("milan_pipeline.bakery")
ROOT = Path(console.__file__).parents[2]
MAY_ECHO = {"main.py", "interrupts.py", "launch.py", "console.py", "progress.py"}
MAY_ECHO |= {"model_card.py"}  # its snippets print


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bake:
    """Bake cakes."""

    burn: bool = option(default=False, help="Burn them.")


def bake(config: Bake) -> None:
    console.note("the oven is cold")
    console.warn("it smells")
    LOG.info("one is baked")
    LOG.debug("a look into the oven")
    console.say("a line without figures")
    console.say("cakes: 2 of 3", cakes=2, wanted=3)
    console.say_counts("shop", {"cakes": 2, "cakes_done_now": 1})
    if config.burn:
        raise DataError("they burnt")


def weigh(_: Bake) -> None:
    console.say("done")
    console.report(iter(["a 1", "b 2"]))
    console.report(["c 3"], [1, 2, 3])


def told(*words: str, run=bake) -> Result:
    command = stage_command("bake", Bake, run=run, dry_run=None)
    return CliRunner().invoke(command, list(words))


def test_a_summary_and_what_is_beside_it() -> None:
    result = told()
    assert result.stdout == (
        "a line without figures\ncakes: 2 of 3\nshop: 2 cakes, 1 cake done now\n"
    )
    assert result.stderr == "the oven is cold\nWarning: it smells\n"


def test_quiet_says_reports_alone() -> None:
    assert told("--quiet").output == ""
    assert told("--quiet", run=weigh).output == "a 1\nb 2\nc 3\n"
    assert told(run=weigh).output == "done\na 1\nb 2\nc 3\n"


@pytest.mark.parametrize(
    ("flag", "logged"),
    [("--verbose", ["one is baked"]), ("--debug", ["one is baked", "a look into the oven"])],
)
def test_logs_are_shown_on_demand(flag: str, logged: list[str]) -> None:
    lines = re.findall(
        r"^\d\d:\d\d:\d\d milan_pipeline.bakery: (.*)$", told(flag).stderr, re.MULTILINE
    )
    assert lines == logged
    assert not LOG.isEnabledFor(logging.INFO)  # afterwards, they are as before


def test_json_is_one_document() -> None:
    facts = {"cakes": 2, "wanted": 3, "out": "shop", "cakes_done_now": 1}
    both = told("--json")
    assert json.loads(both.stdout) == facts
    assert "cakes: 2 of 3\n" in both.stderr
    assert json.loads(told("--json", "--quiet").output) == facts
    assert json.loads(told("--json", run=weigh).stdout) == [1, 2, 3]
    assert json.loads(told("--json", "--quiet", run=weigh).output) == [1, 2, 3]
    failed = told("--json", "--burn")
    assert isinstance(failed.exception, DataError)
    assert failed.stdout == ""  # half a document is none


def test_a_name_ends_no_line() -> None:
    names = ["a\nb: done", "\x1b[2Jc\x85\u2028", "d\té\udce9"]
    found = told(run=lambda _: console.report(names))
    assert found.stdout_bytes.decode().splitlines()[:2] == [r"a\nb: done", r"\x1b[2Jc\x85\u2028"]
    assert console.one_line(names[2]) == names[2]


def test_nothing_said_is_no_document() -> None:
    assert told("--json", run=lambda _: None).stdout == ""


def test_quiet_contradicts_verbose() -> None:
    result = told("--quiet", "--debug")
    assert result.exit_code == 2
    assert "--quiet and --debug contradict each other" in result.stderr


def test_other_processes_are_told_to_speak_alike() -> None:
    heard: list[list[str]] = []

    def listen(_: Bake) -> None:
        heard.append(console.output_words())

    for words in ([], ["--quiet"], ["--verbose", "--json"], ["--debug"]):
        assert told(*words, run=listen).exit_code == 0
        assert heard[-1] == words


def test_all_is_said_through_one_module() -> None:
    for folder in ("milan_pipeline", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            echoes = re.findall(r"\bclick\.(?:echo|secho)\b|\bprint\(|sys\.std(?:out|err)\b", text)
            assert not echoes or path.name in MAY_ECHO, path


def test_standard_output_on_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails, too
    monkeypatch.setattr("sys.stdout", full)
    with pytest.raises(StorageError, match=r"output cannot be written \(No space left"):
        console.say("1 image")
    with contextlib.suppress(OSError):
        full.close()


def test_standard_output_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    console.say("1 image")
    assert console.fits_terminal("x" * 1000)
