"""The data sets: their sources, and the verified copy on this machine."""
