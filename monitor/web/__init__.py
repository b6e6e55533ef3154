"""The HTTP server of the metrics, with TLS and a password."""
