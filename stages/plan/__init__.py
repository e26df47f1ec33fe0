"""What a job will take: options and report."""
