"""BeatGAN: its networks and losses, its checkpoints, and what turns a window into a score."""
