"""Ready-made compositions of the stages."""
