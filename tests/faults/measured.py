"""The peak of a stage's resident memory, in a process of its own."""

from multiprocessing.connection import Connection
from pathlib import Path

from milan_pipeline.cli.main import main
from tests.faults.victims import CONTEXT, PATIENCE, Words, as_a_command


def peak_bytes(words: Words, log: Path) -> int:
    """Run a command to its end and return the most memory that its process had at once."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_measure, args=([str(w) for w in words], str(log), theirs))
    process.start()
    theirs.close()
    assert ours.poll(PATIENCE), f"it hangs: {log.read_text()}"
    try:
        peak: int = ours.recv()
    except EOFError:
        raise AssertionError(log.read_text()) from None
    process.join(PATIENCE)
    return peak


def _measure(words: list[str], log: str, answer: Connection) -> None:
    as_a_command(log)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is the server's
    main(words)
    status = Path("/proc/self/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    answer.send(1024 * int(kilobytes))
