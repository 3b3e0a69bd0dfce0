"""MLflow as a projection of the ledger: it may lag or be deleted without loss of data.

`mlflow_runs` has `Tracker`, which logs runs in the background of a sweep, and `sync`, which logs them at once.
"""
