"""The data sets: where they come from, and the checked copy on this machine."""
