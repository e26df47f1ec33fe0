"""What this machine has for the pipeline, and what to set."""
