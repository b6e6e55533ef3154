"""Losses, settings, and one step of training a generator: no data sets, no files of records."""
