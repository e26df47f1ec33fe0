"""Is a target store complete and right: options, checks, report."""
