"""Image shards -> target store: options, plan, codec, run."""
