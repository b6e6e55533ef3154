"""The networks: BeatGAN, the dense student and the self-teacher, and their shapes."""
