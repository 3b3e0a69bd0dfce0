"""MLflow as a projection of the ledger: it may lag or be deleted, and nothing is lost.

`tracker` brings runs there in the background of a sweep, `sync` in the foreground; both use `mlflow_runs`.
"""
