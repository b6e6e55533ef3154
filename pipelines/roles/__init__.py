"""The producer and the worker."""
