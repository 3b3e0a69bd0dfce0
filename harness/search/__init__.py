"""Searches. `base` has the protocol, `samplers` lists the searches, `catalogue` says which fit a study, `factory` creates one."""
