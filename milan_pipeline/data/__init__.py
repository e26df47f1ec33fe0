"""Which sample when; pairs and labelled samples; the loader."""
