"""Searches. `base` has the protocol, `samplers` the list, `catalogue` what fits a study; `factory` creates one."""
