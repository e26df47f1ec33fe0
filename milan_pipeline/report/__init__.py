"""What a store, shards or runs hold: facts for a terminal, and one page that opens from disk."""
