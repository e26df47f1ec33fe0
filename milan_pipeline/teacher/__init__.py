"""CLIP image tower -> (targets, prior), whatever its family."""
