"""ecgmon: a streaming ECG monitoring daemon, and its parts for use from Python."""
