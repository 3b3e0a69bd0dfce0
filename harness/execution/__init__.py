"""Training on workers: here or on a cluster. `base` has the protocols."""
