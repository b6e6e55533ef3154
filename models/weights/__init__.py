"""The shipped checkpoints, and the reader that refuses a bad one."""
