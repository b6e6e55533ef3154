"""The command line: one module for each command, which parses and prints."""
