"""The daemon's chain over a record at once: score, explain, pictures."""
