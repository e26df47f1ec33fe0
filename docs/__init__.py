"""The documentation, and how it is built."""
