"""Functions that read what was found."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.studies import complain, name_of, open_ledger
from harness.support import home as places

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.comparison.comparison import Comparison
    from harness.planning.status import Status
    from harness.study.records import Scalar
    from harness.study.spec import SweepSpec
    from harness.tracking.registry import Registered
    from harness.workflows.predict import Prediction


def leaderboard(*studies: str | SweepSpec, home: str | Path | None = None) -> pd.DataFrame:
    """All finished trials, best first, ranked among trials of the same fidelity: `harness leaderboard`.

    Args:
        studies: Names of studies or of their files in `sweeps/`, or specs; without any, all studies.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        One row per trial, indexed by trial uid, with the columns of docs/export.md: error rates in percent, times in
        seconds.

    Raises:
        InputError: there is no such study, or none at all.
        TroubleError: the ledger cannot be read.
    """
    from harness.analysis.leaderboard.leaderboard import leaderboard as board
    from harness.ledger.ledger import sound_studies

    with open_ledger(home) as ledger:
        return board(ledger, [name_of(study, home) for study in studies] or sound_studies(ledger, warnings.warn))


def status(*studies: str | SweepSpec, home: str | Path | None = None) -> list[Status]:
    """What is done and what is left of studies, also while they run: `harness status`.

    Args:
        studies: Names of studies or of their files in `sweeps/`, or specs; without any, all studies.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        A record for each study, oldest first where all are asked for.

    Raises:
        InputError: there is no such study.
        TroubleError: the ledger cannot be read.
    """
    from harness.ledger.ledger import of_each
    from harness.planning.plan import status_with_time

    with open_ledger(home) as ledger:
        seen = partial(status_with_time, ledger)
        return [seen(name_of(study, home)) for study in studies] or of_each(ledger, warnings.warn, seen)


def trials(study: str | SweepSpec, *, epochs: bool = False, home: str | Path | None = None) -> pd.DataFrame:
    """All trials of a study in their order, those without a result as well: the table of `harness export`.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec.
        epochs: A row for each epoch of each trial that has ended, instead of one per trial.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        A data frame with the columns of docs/export.md, whose types and values are checked.

    Raises:
        InputError: there is no such study.
        TroubleError: the ledger cannot be read, or holds values that are not allowed.
    """
    from harness.analysis.export.trials import Table, checked_table

    with open_ledger(home) as ledger:
        return checked_table(ledger, name_of(study, home), Table.EPOCHS if epochs else Table.TRIALS)


@dataclass(frozen=True)
class BestConfiguration:
    """The searched configuration of a study with the lowest mean error.

    Attributes:
        config: All settings of the network: `fc.Config(**best.config)` with `from baselines import fc`.
        recipe: All settings of the training: `Recipe(**best.recipe)` with `from baselines.recipe import Recipe`.
        trial: Number of its first trial.
        error_rate_pct: Mean validation error over its seeds, percent.
        num_seeds: Number of seeds.
    """

    config: dict[str, Scalar]
    recipe: dict[str, Scalar]
    trial: int
    error_rate_pct: float
    num_seeds: int


def best(study: str | SweepSpec, *, home: str | Path | None = None) -> BestConfiguration:
    """The best configuration of a study so far, with all its settings as keyword arguments.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: there is no such study, or none of its searched trials was trained to the end.
        TroubleError: the ledger cannot be read.
    """
    from harness.errors import InputError
    from harness.ledger.ledger import find_study
    from harness.study.comparability import Configurations

    with open_ledger(home) as ledger:
        spec = find_study(ledger, name_of(study, home)).spec
        found = Configurations(spec, ledger.finished(spec.study)).best
    if found is None:
        raise InputError(f"study {spec.study} has no searched trial that was trained to the end yet")
    return BestConfiguration(
        spec.network_settings(found.params),
        asdict(spec.trial_recipe(found.params)),
        found.first.trial.number,
        found.mean_error_pct,
        found.num_seeds,
    )


def compare(*studies: str | SweepSpec, home: str | Path | None = None) -> Comparison:
    """Compares studies of one baseline and one fidelity: `harness compare`.

    Args:
        studies: At least two, as in `leaderboard`; studies that differ only in the search's seed are repeats of one
            method.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        Its `table` has a row per method, its `curves` a row per trial, as data frames.

    Raises:
        InputError: there is no such study, or they cannot be compared.
        TroubleError: the ledger cannot be read.
    """
    from harness.analysis.comparison.comparison import compare as compare_studies

    with open_ledger(home) as ledger:
        return compare_studies(ledger, [name_of(study, home) for study in studies])


def report(study: str | SweepSpec, file: str | Path | None = None, *, home: str | Path | None = None) -> Path:
    """Writes a study as one HTML file that opens offline: `harness report`.

    Its summary and figures go to MLflow as well; if MLflow is not available, a line on standard error says so.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec; it may be running.
        file: File to write; None: `reports/STUDY.html` of the home.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        The file.

    Raises:
        InputError: there is no such study, it is a verdict, or no file can be written there.
        TroubleError: the ledger cannot be read, or the file cannot be written.
    """
    from harness.errors import InputError, TroubleError
    from harness.support.atomic_files import destination
    from harness.workflows.report import bring_to_mlflow, write_report

    folder = places.home(home)
    with nullcontext(None) if file is None else destination("file", file) as out:
        made = write_report(folder, name_of(study, home), out)
    try:
        bring_to_mlflow(folder, made)
    except (InputError, TroubleError) as error:  # the page was the request
        complain(f"its figures are not in MLflow: {error}")
    return made.path


def predict(
    *images: str | Path, model: str = "champion", home: str | Path | None = None
) -> tuple[Registered, list[Prediction]]:
    """Classifies PNG pictures with a registered network: `harness predict`.

    Args:
        images: PNG files; those of digits may have any size, and be dark on light or light on dark.
        model: "champion" for the newest one if all are of one data set, or NAME, NAME@ALIAS or NAME/VERSION of a
            registered model.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        The network, and a prediction for each picture with its `digit` (or class), `probability` and `probabilities`.

    Raises:
        InputError: there is no such model, or a file cannot be read.
        TroubleError: MLflow is unavailable, or the model's file is missing.
    """
    from harness.errors import InputError
    from harness.support.given_files import path_of
    from harness.workflows.predict import predict as classify

    if not images:
        raise InputError("images are none; allowed: one or more PNG files")
    return classify(places.home(home), model, [Path(path_of("images", image)) for image in images])


def tracking_uri(home: str | Path | None = None) -> str:
    """The address of the runs, for `mlflow.set_tracking_uri`.

    Args:
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: MLFLOW_TRACKING_URI is neither a server nor a database.
    """
    from harness.tracking.store import tracking_uri as address

    return address(places.home(home))
