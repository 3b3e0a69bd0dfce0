"""The loop of a sweep, what puts it together, and what people see of it."""
