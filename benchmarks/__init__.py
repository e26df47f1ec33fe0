"""Measured comparisons, each runnable alone, each printing a ratio taken in one run."""
