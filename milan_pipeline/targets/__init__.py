"""Target store and target shards: layout, units, write, read, verify, transcode, status."""
