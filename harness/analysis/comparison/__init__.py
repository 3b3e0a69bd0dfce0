"""Ways to search set beside each other."""
