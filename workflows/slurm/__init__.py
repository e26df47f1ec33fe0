"""Templates of batch scripts, which `milan-pipeline submit` fills."""
