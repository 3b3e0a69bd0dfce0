"""Trials ranked, and what the ranking allows to say."""
