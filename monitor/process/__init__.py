"""Processes, sockets, signals, systemd, logs: the shell around the core."""
