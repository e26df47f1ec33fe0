"""File systems as clusters have them: they fail, have no locks or no room; below our own code."""
