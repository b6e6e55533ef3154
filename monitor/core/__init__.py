"""The monitor's decisions: who scores which beats, which alerts are raised. No sockets, clocks or files."""
