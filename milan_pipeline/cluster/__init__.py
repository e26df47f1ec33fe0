"""More than one process or machine: torchrun's world, units of work, Dask, Slurm."""
