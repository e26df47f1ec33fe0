"""Stages on Dask workers that a batch system starts."""
