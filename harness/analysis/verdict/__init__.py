"""Whether the best trials are better than the baseline."""
