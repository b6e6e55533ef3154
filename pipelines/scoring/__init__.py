"""The scoring chain: from the items of a stream to scored items."""
