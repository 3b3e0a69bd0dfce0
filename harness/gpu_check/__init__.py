"""The check of `harness doctor --gpu`: what holds on this machine's GPUs, tried on them, with the numbers."""
