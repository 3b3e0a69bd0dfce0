"""Hyperparameter sweeps around documented baselines, measured honestly."""
