"""Image shards -> teacher -> target store, overlapped, here or on Dask."""
