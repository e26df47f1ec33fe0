"""Encoder and labelled images -> a classifier: options, plan, run, evaluation."""
