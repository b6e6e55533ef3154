"""What data flows through: sources, segmentation, messages, producer, worker; training and evaluation."""
