"""Device paths without a device: what is copied, and that nothing waits."""
