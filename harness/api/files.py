"""Functions that write studies to files for others, and read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.studies import complain, name_of, open_ledger
from harness.support import home as places

if TYPE_CHECKING:
    from harness.study.spec import SweepSpec


def export_trials(
    study: str | SweepSpec, file: str | Path, *, epochs: bool = False, home: str | Path | None = None
) -> None:
    """Writes the table of `trials` for other tools: `harness export STUDY --csv FILE`.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec.
        file: File to write, with extension .csv, .parquet or .json; an earlier one is replaced.
        epochs: A row for each epoch, instead of one per trial.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: there is no such study, or no file of such a name can be written.
        TroubleError: the ledger cannot be read, or the file cannot be written.
    """
    from harness.analysis.export.trials import FORMS, Table, export_table
    from harness.errors import InputError
    from harness.support.atomic_files import destination
    from harness.support.given_files import path_of

    named = path_of("file", file)
    form = Path(named).suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise InputError(f"file is {named!r}; allowed: a name that ends in .{', .'.join(FORMS)}")
    with destination("file", named, f".{form}") as path, open_ledger(home) as ledger:
        export_table(ledger, name_of(study, home), path, form, Table.EPOCHS if epochs else Table.TRIALS)


def export_optuna(study: str | SweepSpec, storage: str, *, home: str | Path | None = None) -> int:
    """Writes a study into an Optuna storage, for optuna-dashboard and the like: `harness export STUDY --optuna URL`.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec; it may be running. The call may
            be repeated.
        storage: Address of the storage, such as "sqlite:///trials.db".
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        Number of trials that are new in the storage, or newly ended.

    Raises:
        InputError: there is no such study, the address is invalid, or the storage has another study of this name.
        TroubleError: the storage cannot be reached or written.
    """
    from harness.analysis.export.optuna_storage import export_optuna as export

    with open_ledger(home) as ledger:
        return export(ledger, name_of(study, home), storage)


def export_study(study: str | SweepSpec, file: str | Path, *, home: str | Path | None = None) -> None:
    """Writes all that the ledger has of a study and its verdict into one file: `harness export STUDY --study FILE`.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec; it may be running.
        file: File to write, with extension .study.gz (docs/export.md); an earlier one is replaced.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: there is no such study, it is a verdict, or no file can be written there.
        TroubleError: the ledger's rows are damaged, or the file cannot be written.
    """
    from harness.ledger.study_file import ENDING
    from harness.support.atomic_files import destination
    from harness.workflows.study_file import export_study as export

    with destination("file", file, ENDING) as path, open_ledger(home) as ledger:
        export(ledger, name_of(study, home), path)


def import_study(file: str | Path, *, study: str | None = None, home: str | Path | None = None) -> str:
    """Adds the study of a file of `export_study`, with its verdict, to a home: `harness import FILE`.

    MLflow gets its runs. The study goes on where it was, with `run_sweep`. One that is in the ledger already, with the
    same trials, is left as it is.

    Args:
        file: The file.
        study: Its name in this home; None: its own.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        The study's name.

    Raises:
        InputError: there is no such file, the ledger has another study of this name, or its trials in another study.
        TroubleError: the file is not as it was written or of a newer version, or the ledger cannot be written.
    """
    from harness.support.given_files import path_of
    from harness.sweep.runner import bring_to_mlflow
    from harness.workflows.study_file import import_study as add

    folder = places.home(home)
    imported = add(folder, path_of("file", file), study)
    for name in imported.num_trials:
        bring_to_mlflow(folder, name, complain)
    return imported.study
