"""Utilities for all packages; they depend on none of them."""
