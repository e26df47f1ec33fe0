"""Bytes, hours and codec trade-offs, before anything is written."""
