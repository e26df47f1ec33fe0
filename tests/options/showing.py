"""Run what an entry asks for, and say what speaks against the option; nothing if it is alive."""

import re
from collections.abc import Iterable
from typing import Any

from tests.options.kinds import Decides, Differs, Entry, Grows, Place, Same, Settings, Table
from tests.options.running import Finished, Runner, differences

DEAD = "changes nothing"


class Shown:
    """Shows options alive; runs that several options are held against are done once.

    Args:
        runner: of the commands.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._plain: dict[tuple[str, str], dict[str, Any]] = {}

    def objection(self, table: Table, name: str, entry: Entry) -> str | None:
        """Show one option; `Same` is shown by `objection_to_all`.

        Returns:
            What speaks against it; None if the option is alive.
        """
        match entry:
            case Differs(value, given, along):
                return self._differs(table, given, {**along, name: value})
            case Place(_, other, given):
                return self._differs(table, given, {name: other})
            case Decides(value, said, given, before):
                return self._decides(table, {**given, name: value}, name, said, before)
            case Grows(less, given):
                return self._grows(table, given, {name: less})
        return None

    def objection_to_all(
        self, table: Table, given: Settings, changes: Settings, within: float
    ) -> str | None:
        """Change execution options together; the output must be as it is without them."""
        found = self._outcome(table, [{**given, **changes}])
        parts = differences(self._of(table, given), found, within)
        return f"{dict(changes)} change {parts[:5]}" if parts else None

    def _of(self, table: Table, given: Settings) -> dict[str, Any]:
        key = (table.command, repr(sorted(given.items())))
        if key not in self._plain:
            self._plain[key] = self._outcome(table, [given])
            assert self._plain[key], "nothing counts as output"
        return self._plain[key]

    def _outcome(self, table: Table, changes: Iterable[Settings]) -> dict[str, Any]:
        run = self._run(table, changes)
        assert run.code == 0, run.errors
        return table.outcome(run)

    def _run(self, table: Table, changes: Iterable[Settings]) -> Finished:
        return self.runner.run(table.command, *({**table.base, **each} for each in changes))

    def _differs(self, table: Table, given: Settings, change: Settings) -> str | None:
        found = self._outcome(table, [{**given, **change}])
        return None if differences(self._of(table, given), found) else f"{dict(change)} {DEAD}"

    def _decides(
        self, table: Table, with_it: Settings, name: str, said: str, before: Settings | None
    ) -> str | None:
        without: Settings = {key: value for key, value in with_it.items() if key != name}
        earlier = [] if before is None else [before]
        runs = [self._run(table, [*earlier, each]) for each in (without, with_it)]
        failed = [run for run in runs if run.code]
        if len(failed) != 1:
            return f"with the option and without it, {len(failed)} runs of two fail"
        if not re.search(said, failed[0].errors):
            return f"it fails for another reason: {failed[0].errors}"
        if before is None:
            return None
        # The run with the option is the last one, so that its output is still there.
        parts = differences(self._of(table, without), table.outcome(runs[1]))
        return f"what was there before shows in {parts[:5]}" if parts else None

    def _grows(self, table: Table, given: Settings, less: Settings) -> str | None:
        whole, fewer = self._of(table, given), self._outcome(table, [{**given, **less}])
        if not differences(whole, fewer):
            return f"{dict(less)} {DEAD}"
        grown = self._outcome(table, [{**given, **less}, given])
        parts = differences(whole, grown)
        return f"grown, it differs in {parts[:5]}" if parts else None


def joint_changes(table: Table) -> list[tuple[Settings, Settings, float]]:
    """Group the execution options of a table: what is given, what changes, within what."""
    groups: dict[tuple[str, float, str], tuple[Settings, dict[str, Any], float]] = {}
    for name, shown_by in table.all_entries():
        entry = shown_by
        if isinstance(shown_by, Place):
            entry = Same(shown_by.moved, shown_by.given)
        if isinstance(entry, Same):
            key = (repr(sorted(entry.given.items())), entry.within, entry.group)
            _, changes, _ = groups.setdefault(key, (entry.given, {}, entry.within))
            changes[name] = entry.value
    return list(groups.values())
