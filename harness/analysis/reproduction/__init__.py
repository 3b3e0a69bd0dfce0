"""Comparison of a repeated training with its record."""
