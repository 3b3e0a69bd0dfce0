"""The Python functions: thin wrappers of the functions that the command calls.

Importing this module is fast; each function imports what it needs. Workers are processes started by their own command,
so neither a script nor a notebook needs `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.execution.executors import LOCAL, ExecutorSettings
from harness.support import home as places
from harness.support import standard_streams

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.comparison.comparison import Comparison
    from harness.analysis.verdict.findings import Verdict
    from harness.ledger.ledger import Ledger
    from harness.planning.status import Status
    from harness.study.records import Scalar
    from harness.study.spec import Engine, Objective, Precision, SweepSpec
    from harness.sweep.display import Display
    from harness.sweep.runner import StudyEnd
    from harness.tracking.registry import Registered
    from harness.workflows.predict import Prediction
    from harness.workflows.reproduce import Reproduction


def load_sweep(
    sweep: str | Path,
    *,
    engine: Engine | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    objective: Sequence[Objective] | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    trials: int | None = None,
    budget: str | None = None,
    profile: str | None = None,
    study: str | None = None,
    enqueue: str | Path | None = None,
    learn_from: str | None = None,
    precision: Precision | None = None,
) -> SweepSpec:
    """Reads a sweep file and checks all of it. Arguments that are not None replace settings of the file.

    Settings that cannot be combined, such as a sampler with a space that it cannot search, are refused here. What
    depends on other studies is checked by `run_sweep`: `learn_from`, and whether the study has begun otherwise.

    Args:
        sweep: Name of a file in `sweeps/`, such as "cnn", or path of a sweep file. A network or data set of one's own
            that the file names is read and checked as well (docs/own-network.md).
        engine: "optuna" or "keras-tuner".
        sampler: How configurations are proposed; the README lists the samplers of both engines.
        pruner: Which running trials are stopped early.
        objective: ("error",), or ("error", "device_time") for a Pareto front.
        dataset: "mnist", "digits", which is small and needs no download, or the path of an `.npz` file
            (docs/own-network.md).
        seed: Seed of the search and of the first training.
        trials: Stop after this number of searched trials in total.
        budget: Stop after this wall time over all sessions: "90s", "15m", "2h".
        profile: A profile of the file, such as "quick" or "full"; None: full with a GPU, quick without.
        study: The study's name; None: made from the file, the profile and the changed settings.
        enqueue: A TOML file of configurations to try first.
        learn_from: A study whose finished trials the sampler gets.
        precision: "float32", "bfloat16", or "auto" for bfloat16 where the device multiplies it in hardware.

    Returns:
        The study with all settings resolved, a frozen record; nothing is written.

    Raises:
        InputError: one line with the setting, its value and the allowed values.
    """
    given = dict(locals())
    from harness.search import catalogue
    from harness.study.options import SWEEP_OPTIONS
    from harness.study.sweep_file import Flags, validated
    from harness.study.sweep_file import load_sweep as load

    flags = {option.name: given[option.name] for option in SWEEP_OPTIONS}
    spec = load(sweep_path(str(sweep)), validated(Flags, flags, "load_sweep"), default_profile())
    catalogue.check(spec)
    return spec


def load_baseline(
    baseline: str,
    *,
    seeds: int | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    profile: str | None = None,
    precision: Precision | None = None,
) -> SweepSpec:
    """The study of a documented network alone, for `run_sweep`: `harness baseline`.

    Its trainings also read the test images.

    Args:
        baseline: "fc" or "cnn".
        seeds: Number of seeds; None: that of the profile.
        dataset: As in `load_sweep`.
        seed: The first seed.
        profile: A profile of the sweep file of the same name.
        precision: As in `load_sweep`.

    Raises:
        InputError: one line with the setting, its value and the allowed values.
    """
    import baselines
    from harness.errors import InputError
    from harness.study.sweep_file import Flags, baseline_spec, validated

    if baseline not in baselines.NAMES:
        raise InputError(f"baseline is {baseline!r}; allowed: {', '.join(map(repr, baselines.NAMES))}")
    flags = {"dataset": dataset, "seed": seed, "profile": profile, "precision": precision}
    return baseline_spec(baseline, validated(Flags, flags, "load_baseline"), seeds, default_profile())


def run_sweep(
    spec: SweepSpec,
    *,
    home: str | Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    quiet: bool = False,
    executor: ExecutorSettings = LOCAL,
    reuse: bool = True,
) -> StudyEnd:
    """Runs a study until its budget is used, or resumes an interrupted one: `harness sweep`.

    Each step is in the ledger before it has an effect, and in MLflow soon after. Ctrl-C (in a notebook: interrupting
    the kernel) lets running trials finish their epoch, a second one stops at once; nothing is lost, and the same call
    resumes the study. Ctrl-C works only in the main thread.

    Args:
        spec: From `load_sweep` or `load_baseline`.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.
        workers: Trials at once; None: one per core or GPU.
        fresh: Keep an earlier study of this name under a dated name and start a new one.
        quiet: Print nothing. Otherwise print what the command prints, as plain lines without a terminal.
        executor: Where the workers run: this machine, or `Ray(...)` for a Ray cluster (docs/cluster/).
        reuse: Take over the results of equal trainings from the ledger instead of training again.

    Returns:
        Why it ended, and whether the budget was already used.

    Raises:
        InputError: the settings cannot be combined, or differ from the study's earlier ones.
        TroubleError: the study is in use, or data, ledger or workers are not available.
        KeyboardInterrupt: it was interrupted.
    """
    from harness.errors import InputError
    from harness.planning.progress import StopReason
    from harness.study.spec import SweepSpec
    from harness.support.strict_json import shown
    from harness.sweep.runner import run_study

    if not isinstance(spec, SweepSpec):
        raise InputError(f"spec is {shown(spec)}; allowed: what load_sweep or load_baseline gives")
    with _display(quiet) as display:
        end = run_study(
            spec, places.home(home), display, num_workers=workers, fresh=fresh, executor=executor, reuses=reuse
        )
    if end.reason is StopReason.INTERRUPTED:
        raise _interrupted(spec.study)
    return end


def leaderboard(*studies: str | SweepSpec, home: str | Path | None = None) -> pd.DataFrame:
    """All finished trials, best first, ranked among trials of the same fidelity: `harness leaderboard`.

    Args:
        studies: Names or specs; without any, all studies.
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
        return board(ledger, [_name(study) for study in studies] or sound_studies(ledger, warnings.warn))


def verdict(
    study: str | SweepSpec,
    *,
    top: int | None = None,
    seeds: int | None = None,
    all_seeds: bool = False,
    epochs: int | None = None,
    budget: str | None = None,
    home: str | Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    quiet: bool = False,
    executor: ExecutorSettings = LOCAL,
    reuse: bool = True,
) -> Verdict:
    """Trains a study's best trials and its baseline again with new seeds and compares them: `harness verdict`.

    The network that the answer selects becomes MLflow's champion (docs/champion.md). Each model reads the test images
    once. The verdict takes up to (1 + top) x seeds full trainings. Ctrl-C works as in `run_sweep`, and the same call
    resumes the verdict; a finished verdict trains nothing.

    Args:
        study: Its name or its spec.
        top: Number of candidates, the best of the study (docs/verdict.md); None: 3.
        seeds: Largest number of seeds, the same for all networks: 3, 5, 8, 12 or 20; None: 5.
        all_seeds: Train all seeds, even if the answer is clear earlier.
        epochs: Epochs of each training; None: those of the sweep file's profile `full`, or else of the study.
        budget: Stop after this wall time over all sessions: "2h".
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.
        workers: Trainings at once; None: one per core or GPU.
        fresh: Keep an earlier verdict under a dated name and start a new one.
        quiet: Print nothing. Otherwise print the progress, and at the end the verdict with its tables.
        executor: Where the workers run: this machine, or `Ray(...)` for a Ray cluster (docs/cluster/).
        reuse: Take over the results of equal trainings from the ledger, such as another verdict's of the baseline.

    Returns:
        The answer, and all numbers behind it.

    Raises:
        InputError: there is no such study, or these settings of a verdict are not possible.
        TroubleError: the study or its verdict is in use, or data, ledger or workers are not available.
        KeyboardInterrupt: it was interrupted.
    """
    from harness.analysis.verdict.table import show_verdict
    from harness.study.spec import parse_duration_s
    from harness.workflows.champion import crowned
    from harness.workflows.verdict import Request, run_verdict

    wall_s = parse_duration_s(budget, "budget") if budget else None
    request = Request(top, seeds, epochs, wall_s, takes_all_seeds=all_seeds)
    with _display(quiet) as display:
        end = run_verdict(
            _name(study),
            request,
            places.home(home),
            display,
            num_workers=workers,
            fresh=fresh,
            executor=executor,
            reuses=reuse,
        )
    if end.was_interrupted:
        raise _interrupted(_name(study))
    champion = crowned(places.home(home), end.verdict)
    if not quiet:
        show_verdict(end.verdict, sys.stdout)
        sys.stdout.write(f"{champion}\n")
    return end.verdict


def status(*studies: str | SweepSpec, home: str | Path | None = None) -> list[Status]:
    """What is done and what is left of studies, also while they run: `harness status`.

    Args:
        studies: Names or specs; without any, all studies.
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
        return [seen(_name(study)) for study in studies] or of_each(ledger, warnings.warn, seen)


def trials(study: str | SweepSpec, *, epochs: bool = False, home: str | Path | None = None) -> pd.DataFrame:
    """All trials of a study in their order, those without a result as well: the table of `harness export`.

    Args:
        study: Its name or its spec.
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
        return checked_table(ledger, _name(study), Table.EPOCHS if epochs else Table.TRIALS)


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
        study: Its name or its spec.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: there is no such study, or none of its searched trials was trained to the end.
        TroubleError: the ledger cannot be read.
    """
    from harness.errors import InputError
    from harness.ledger.ledger import find_study
    from harness.study.comparability import Configurations

    with open_ledger(home) as ledger:
        spec = find_study(ledger, _name(study)).spec
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


def report(study: str | SweepSpec, file: str | Path | None = None, *, home: str | Path | None = None) -> Path:
    """Writes a study as one HTML file that opens offline: `harness report`.

    Its summary and figures go to MLflow as well; if MLflow is not available, a line on standard error says so.

    Args:
        study: Its name or its spec; it may be running.
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
    with nullcontext(None) if file is None else destination("file", str(file)) as out:
        made = write_report(folder, _name(study), out)
    try:
        bring_to_mlflow(folder, made)
    except (InputError, TroubleError) as error:  # the page was the request
        _complain(f"its figures are not in MLflow: {error}")
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
    from harness.workflows.predict import predict as classify

    if not images:
        raise InputError("images are none; allowed: one or more PNG files")
    return classify(places.home(home), model, [Path(image) for image in images])


def reproduce(
    study: str | SweepSpec, trial: int, *, home: str | Path | None = None, quiet: bool = False
) -> Reproduction:
    """Trains a trial again from its record and compares the results: `harness reproduce`.

    Args:
        study: Its name or its spec.
        trial: The trial's number.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.
        quiet: Print nothing. Otherwise print the progress and what was found.

    Returns:
        The comparison, whose `agreement.match` is the answer, and the file with its numbers.

    Raises:
        InputError: there is no such study or trial, or the trial has no trained epoch.
        TroubleError: data, ledger or a worker are unavailable.
    """
    from harness.analysis.reproduction.sentences import sentences
    from harness.workflows.reproduce import reproduce as train_again

    with _display(quiet) as display:
        done = train_again(_name(study), trial, places.home(home), display)
    if not quiet:
        sys.stdout.write("".join(f"{line}\n" for line in sentences(done.agreement)))
    return done


def compare(*studies: str | SweepSpec, home: str | Path | None = None) -> Comparison:
    """Compares studies of one baseline and one fidelity: `harness compare`.

    Args:
        studies: Names or specs, at least two; studies that differ only in the search's seed are repeats of one method.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Returns:
        Its `table` has a row per method, its `curves` a row per trial, as data frames.

    Raises:
        InputError: there is no such study, or they cannot be compared.
        TroubleError: the ledger cannot be read.
    """
    from harness.analysis.comparison.comparison import compare as compare_studies

    with open_ledger(home) as ledger:
        return compare_studies(ledger, [_name(study) for study in studies])


def export_trials(
    study: str | SweepSpec, file: str | Path, *, epochs: bool = False, home: str | Path | None = None
) -> None:
    """Writes the table of `trials` for other tools: `harness export STUDY --csv FILE`.

    Args:
        study: Its name or its spec.
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

    form = Path(file).suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise InputError(f"file is {str(file)!r}; allowed: a name that ends in .{', .'.join(FORMS)}")
    with destination("file", str(file), f".{form}") as path, open_ledger(home) as ledger:
        export_table(ledger, _name(study), path, form, Table.EPOCHS if epochs else Table.TRIALS)


def export_optuna(study: str | SweepSpec, storage: str, *, home: str | Path | None = None) -> int:
    """Writes a study into an Optuna storage, for optuna-dashboard and the like: `harness export STUDY --optuna URL`.

    Args:
        study: Its name or its spec; it may be running, and the call may be repeated.
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
        return export(ledger, _name(study), storage)


def tracking_uri(home: str | Path | None = None) -> str:
    """The address of the runs, for `mlflow.set_tracking_uri`.

    Args:
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: MLFLOW_TRACKING_URI is neither a server nor a database.
    """
    from harness.tracking.store import tracking_uri as address

    return address(places.home(home))


def export_study(study: str | SweepSpec, file: str | Path, *, home: str | Path | None = None) -> None:
    """Writes all that the ledger has of a study and its verdict into one file: `harness export STUDY --study FILE`.

    Args:
        study: Its name or its spec; it may be running.
        file: File to write, with extension .study.gz (docs/export.md); an earlier one is replaced.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.

    Raises:
        InputError: there is no such study, it is a verdict, or no file can be written there.
        TroubleError: the ledger's rows are damaged, or the file cannot be written.
    """
    from harness.ledger.study_file import ENDING
    from harness.support.atomic_files import destination
    from harness.workflows.study_file import export_study as export

    with destination("file", str(file), ENDING) as path, open_ledger(home) as ledger:
        export(ledger, _name(study), path)


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
    from harness.sweep.runner import bring_to_mlflow
    from harness.workflows.study_file import import_study as add

    folder = places.home(home)
    imported = add(folder, str(file), study)
    for name in imported.num_trials:
        bring_to_mlflow(folder, name, _complain)
    return imported.study


def sweep_path(sweep: str) -> Path:
    """The path of a file in `sweeps/`, by its name, or any path."""
    bare = places.sweeps_folder() / f"{sweep}.toml"
    is_known = Path(sweep).name == sweep and os.path.isfile(bare)  # noqa: PTH113 - Path.is_file raises for long names
    return bare if is_known else Path(sweep)


def default_profile() -> str:
    """The default profile: full with a GPU, quick without."""
    from harness.execution.machine.devices import this_machine

    return "full" if this_machine().gpu_names else "quick"


def _name(study: str | SweepSpec) -> str:
    return study if isinstance(study, str) else study.study


def _interrupted(study: str) -> KeyboardInterrupt:
    return KeyboardInterrupt(f"{study} was interrupted; nothing is lost, and the same call continues from here")


@contextmanager
def open_ledger(home: str | Path | None = None) -> Iterator[Ledger]:
    """A home's ledger for reading, closed at the end; an empty one, without a file, if there is none."""
    from harness.ledger.ledger import Ledger

    with closing(Ledger(places.home(home) / "ledger.db", makes=False, say=_complain)) as ledger:
        yield ledger


def _complain(line: str) -> None:
    sys.stderr.write(f"harness: {line}\n")


@contextmanager
def _display(quiet: bool) -> Iterator[Display]:
    from harness.sweep.display import make_display

    standard_streams.open_missing()
    with (
        _without_progress_bars(),
        Path(os.devnull).open("w") as nowhere,
        make_display(nowhere if quiet else sys.stdout) as display,
    ):
        yield display


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Silences a warning in notebooks: a library of Optuna and MLflow cannot draw progress bars there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield
