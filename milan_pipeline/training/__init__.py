"""The loop of any task: optimiser, checkpoints, run folder, validation."""
