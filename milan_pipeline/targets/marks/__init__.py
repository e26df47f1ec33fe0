"""What is known of the units of a store that are finished: marks without their objects."""
