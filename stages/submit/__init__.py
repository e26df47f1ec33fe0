"""Recipe -> Slurm jobs: options, chain, scripts, run."""
