"""From samples to beats: resampling, signal quality, QRS detection, rhythm."""
