"""Weights of a run -> files that other programs load, with a model card."""
