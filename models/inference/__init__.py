"""A trained generator over batches of windows, on the CPU or a GPU: A(x) and its ticks."""
