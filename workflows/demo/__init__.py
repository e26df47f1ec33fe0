"""A self-contained demo: generated scenes and a small CLIP trained on them."""
