"""Each role as a process: from a configuration to an exit status."""
