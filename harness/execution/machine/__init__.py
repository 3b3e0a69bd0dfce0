"""What a machine has: processors, GPUs, memory, and the backend that drives them."""
