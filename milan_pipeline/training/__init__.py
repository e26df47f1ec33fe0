"""The loop, whatever is learnt: optimiser, checkpoints, run folder, validation."""
