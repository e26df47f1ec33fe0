"""What is done to replay a recorded case: a module a kind; see `benchmarks.parity`."""
