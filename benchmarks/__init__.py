"""Benchmarks: each is a command of its own and prints a ratio that was measured in one run."""
