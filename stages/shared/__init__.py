"""What several stages have: options of training and of Dask, and what is said of a run."""
