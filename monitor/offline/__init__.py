"""Records through the daemon's chain and alert rules, without a daemon."""
