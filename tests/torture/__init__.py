"""Kills and freezes the running roles at random moments, and compares what is stored with an undisturbed run."""
