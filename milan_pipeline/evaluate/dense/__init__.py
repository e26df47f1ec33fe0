"""Segmentation by frozen patch features and a memory of labelled patches."""
