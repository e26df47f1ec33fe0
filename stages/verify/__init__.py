"""Is a target store whole and right: options, what is checked, report."""
