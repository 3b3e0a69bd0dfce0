"""Whether a trial came out the same again."""
