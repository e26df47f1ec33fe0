"""Encoder and images with masks -> a segmenter: options, choices, plan, run, evaluation."""
