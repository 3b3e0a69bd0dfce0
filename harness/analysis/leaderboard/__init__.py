"""The ranking of trials, and the conclusions from it."""
