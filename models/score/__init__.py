"""From A(x), rhythm and earlier beats to a score with a meaning."""
