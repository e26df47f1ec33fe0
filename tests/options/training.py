"""Entries of the options that every training stage has."""

from tests.options.kinds import Differs, Entry, Exempt, Grows, Same

SLOW = "starts processes, which takes tens of seconds"


def training_entries(**own: Entry) -> dict[str, Entry]:
    """Return the entries of `TrainingOptions`; a stage's own are added, or take their place."""
    shared: dict[str, Entry] = {
        "out": Same("{else}/run"),
        "batch_size": Differs(3),
        "clip_grad": Differs(0.01),
        "ema_decay": Differs(0.9, given={"ema_decay": 0.5}),
        "seed": Differs(1),
        "lanes": Differs(1),
        "shuffle_block": Differs(1),
        "precision": Differs("bf16"),
        "max_steps": Grows(2),
        "micro_batch": Same(2, given={"base_lr": 1e-3}, within=1e-5),
        "compile": Same(True, group="compiled"),
        "checkpoint_every": Same(1),
        "keep": Same(1),
        "log_every": Same(1),
        "wandb": Exempt("needs wandb; tests/training/test_wandb_log.py has one that pretends"),
        "workers": Same("auto"),
        "cache": Same("{else}/cache"),
        "cache_gb": Same(0.02),
        "processes": Exempt(
            f"{SLOW}; tests/end_to_end/test_processes.py, test_torchrun.py, "
            "tests/stages/segment/test_processes.py"
        ),
        "device": Same("cpu"),
        "threads": Same(2, given={"base_lr": 1e-3}, within=1e-5),
    }
    return shared | own
