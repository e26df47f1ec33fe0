"""What each codec costs and keeps: options and report."""
