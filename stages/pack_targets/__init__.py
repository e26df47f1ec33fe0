"""Target store -> target shards: options, codec, run."""
