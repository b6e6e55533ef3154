"""The networks: BeatGAN's, the dense student, the self-teacher, and the shapes that they are made from."""
