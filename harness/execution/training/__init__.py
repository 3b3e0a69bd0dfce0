"""Training one model: the trainer and the engines."""
