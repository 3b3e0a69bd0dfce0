"""The two ways a command can fail on purpose; both messages are one line for people."""


class InputError(ValueError):
    """The user's input is wrong: what, its value, what is allowed. Exit status 2, nothing written."""


class TroubleError(RuntimeError):
    """Bad luck (disk, network, a foreign file): what happened and what to do. Exit status 1, nothing lost."""


class DamageError(TroubleError):
    """Rows of the ledger are not what the harness wrote there; other studies may be sound."""
