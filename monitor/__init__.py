"""The daemon: command line, configuration, supervision, delivery, store, alerts, metrics."""
