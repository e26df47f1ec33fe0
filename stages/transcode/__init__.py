"""Target store -> the same targets by another codec: options, plan, run."""
