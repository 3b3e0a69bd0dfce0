"""Comparison of search methods."""
