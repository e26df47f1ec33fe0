"""A run as `inspect` reads it: facts, what it logged, and what it predicts."""
