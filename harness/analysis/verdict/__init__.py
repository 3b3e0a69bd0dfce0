"""The test whether the best trials are better than the baseline."""
