"""Data sets, splits, plans, fitting of generators and scores."""
