"""The store: what is committed to SQLite, and how it is read back."""
