"""What decides: who scores which beats, what becomes of items, which alerts are raised. No sockets, clocks or files."""
