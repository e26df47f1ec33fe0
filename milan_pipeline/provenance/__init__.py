"""What an output was made of: identity and stage record."""
