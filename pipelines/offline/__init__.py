"""Process a whole record with the daemon's chain: score, explain, draw."""
