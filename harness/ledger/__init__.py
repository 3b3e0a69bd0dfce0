"""The ledger, which is the one truth: its tables, what their rows mean, and who may write."""
