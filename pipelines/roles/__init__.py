"""The roles that connect to the monitor: producer and worker."""
