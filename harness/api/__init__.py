"""The Python functions: thin wrappers of the functions that the command calls.

Importing them is fast; each imports what it needs. Workers are processes started by their own command, so neither a
script nor a notebook needs `if __name__ == "__main__"`.
"""
