"""Workflows over whole studies: verdicts, champions, reports, reproductions, and checks of the installation."""
