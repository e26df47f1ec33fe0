"""The stages as Snakemake rules: `Snakefile`, its `config.yaml`, and a profile for Slurm."""
