"""Shards -> a run: options, plan, run."""
