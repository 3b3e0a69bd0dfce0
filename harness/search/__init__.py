"""Searches. `base` has the protocol, `catalogue` lists the searches, `factory` creates one."""
