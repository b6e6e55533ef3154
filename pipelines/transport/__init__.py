"""The protocol between the roles: greeting, liveness, what is not stored yet, keys."""
