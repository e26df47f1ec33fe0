"""What the processes of tests of several processes do: train a small run, all together."""

from tests.small_run import Run, open_data


def train(world, shards, folder, parts):
    """Train a run part by part in this process.

    Args:
        world: the processes.
        shards: folders of images and targets.
        folder: of the run.
        parts: what each call of `Run.train` changes; "break_at" and "stop_at" end it early.

    Returns:
        keys: this process's samples, by step of the last part.
    """
    run = Run(open_data(*shards), folder, world)
    keys = {}

    def noted(step, batch):
        keys[step] = batch.keys
        return batch

    for part in parts:
        changes = dict(part)
        if "break_at" in changes:
            run.break_at(changes.pop("break_at"), **changes)
        elif "stop_at" in changes:
            step, rank = changes.pop("stop_at")
            run.stop_at(step, rank=rank, **changes)
        else:
            keys.clear()
            run.train(change=noted, **changes)
    return keys
