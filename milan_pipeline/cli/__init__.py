"""The command group; how a dataclass becomes a command; recipes."""
