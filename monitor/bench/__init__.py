"""Speed of the running pipeline and of its parts, measured against references in the same run."""
