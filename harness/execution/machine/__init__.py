"""The machine: processors, GPUs, memory, and the backend."""
