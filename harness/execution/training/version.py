"""The version of the training code."""

# Raise it with each change after which a training gives other numbers than before, in any bit: results of equal
# trainings are taken over from the ledger (`harness.sweep.reuse`). tests/test_training_version.py has known results.
TRAINING_VERSION = 3
