"""The configuration: schema, reading, errors, documentation."""
