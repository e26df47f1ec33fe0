"""Frozen encoder -> scores: options and run."""
