"""What a GPU does with this project: whether it is right, and how fast, in one command."""
