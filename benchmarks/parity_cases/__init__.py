"""Replays recorded cases, with one module for each kind; see `benchmarks.parity`."""
