"""The scoring chain and alert rules of the daemon on records, without a daemon."""
