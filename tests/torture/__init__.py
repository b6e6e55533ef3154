"""Kills and freezes the running roles at random moments, and compares the store with that of an undisturbed run."""
