"""Exports of studies for other tools."""
