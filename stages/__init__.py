"""One file per stage: its options, its configuration and its `run()`."""
