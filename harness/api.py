"""What the command does, for Python users: thin functions over what the command itself calls.

Importing this loads nothing heavy; each function imports what it needs. Workers are processes started by a command of
their own, so a script needs no `if __name__ == "__main__"`, and a notebook no more than a script.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.support import home as places
from harness.support import standard_streams

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.comparison.comparison import Comparison
    from harness.analysis.verdict.findings import Verdict
    from harness.execution.base import Cluster
    from harness.ledger.ledger import Ledger
    from harness.study.spec import Dataset, Engine, Objective, SweepSpec
    from harness.sweep.display import Display
    from harness.sweep.runner import StudyEnd


def load_sweep(
    sweep: str | Path,
    *,
    engine: Engine | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    objective: Sequence[Objective] | None = None,
    dataset: Dataset | None = None,
    seed: int | None = None,
    trials: int | None = None,
    budget: str | None = None,
    profile: str | None = None,
    study: str | None = None,
    enqueue: str | Path | None = None,
    learn_from: str | None = None,
) -> SweepSpec:
    """Reads a sweep file and checks all of it; what is not None takes the place of what the file says.

    Args:
        sweep: A file of `sweeps/` by its bare name, such as "cnn", or the path of a sweep file.
        engine: "optuna" or "keras-tuner".
        sampler: How configurations are proposed; the README lists the samplers of both engines.
        pruner: Which running trials are stopped early.
        objective: ("error",), or ("error", "device_time") for a Pareto front.
        dataset: "mnist", or "digits", which is small and needs no download.
        seed: Of the search and of the first training.
        trials: Stop after so many searched trials in all.
        budget: Stop after so much wall time in all sessions together: "90s", "15m", "2h".
        profile: One of the file's own, such as "quick" or "full"; None: full where there is a GPU.
        study: The study's name; None: made of the file, the profile and whatever is changed here.
        enqueue: A TOML file of configurations to try first.
        learn_from: A study whose finished trials teach the search.

    Returns:
        The study with every setting resolved, a frozen record; nothing is written.

    Raises:
        InputError: one line with what is wrong, its value and what is allowed.
    """
    from harness.study.sweep_file import Flags, validated
    from harness.study.sweep_file import load_sweep as load

    flags = {
        "engine": engine,
        "sampler": sampler,
        "pruner": pruner,
        "objective": None if objective is None else tuple(objective),
        "dataset": dataset,
        "seed": seed,
        "trials": trials,
        "budget": budget,
        "profile": profile,
        "study": study,
        "enqueue": enqueue,
        "learn_from": learn_from,
    }
    return load(sweep_path(str(sweep)), validated(Flags, flags, "load_sweep"), default_profile())


def run_sweep(
    spec: SweepSpec,
    *,
    home: str | Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    quiet: bool = False,
    cluster: Cluster | None = None,
) -> StudyEnd:
    """Runs a study until its budget is used, or goes on with one that was interrupted: `harness sweep`.

    Everything is in the ledger before it is acted on, and in MLflow soon after. Ctrl-C (in a notebook: to interrupt the
    kernel) lets running trials end with their epoch, a second one stops at once; nothing is lost, and the same call
    goes on. Called from another thread than the main one, it does not hear Ctrl-C.

    Args:
        spec: As `load_sweep` gives it.
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.
        workers: Trials at once; None: one per core or GPU.
        fresh: Keep an earlier study of this name under a dated name and start a new one.
        quiet: Print nothing. Else what the command prints: plain lines wherever there is no terminal.
        cluster: A Ray cluster for the workers (docs/cluster/); None: they run on this machine.

    Returns:
        Why it ended, and whether the budget had been used before.

    Raises:
        InputError: the settings do not go together, or differ from the study's earlier ones.
        TroubleError: the study is in use, or data, ledger or workers cannot be had.
        KeyboardInterrupt: it was interrupted.
    """
    from harness.planning.progress import StopReason
    from harness.sweep.runner import run_study

    with _display(quiet) as display:
        end = run_study(spec, places.home(home), display, num_workers=workers, fresh=fresh, cluster=cluster)
    if end.reason is StopReason.INTERRUPTED:
        raise _interrupted(spec.study)
    return end


def leaderboard(*studies: str | SweepSpec, home: str | Path | None = None) -> pd.DataFrame:
    """Every trial that has ended, best first, ranked among trials of the same fidelity: `harness leaderboard`.

    Args:
        studies: Names or specs; none: all studies there are.
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
    cluster: Cluster | None = None,
) -> Verdict:
    """Trains a study's best trials and its baseline again with fresh seeds and compares them: `harness verdict`.

    The network that the answer puts forward is then MLflow's champion (docs/champion.md). This
    reads the test images, once per model, and can take long: (1 + top) x seeds trainings at full length. Ctrl-C is
    as with `run_sweep`, and the same call goes on; once it is settled, it trains nothing.

    Args:
        study: Its name, or the spec that it was run with.
        top: How many candidates, the best of the study (docs/verdict.md); None: 3.
        seeds: At most, the same for all: 3, 5, 8, 12 or 20; None: 5.
        all_seeds: Train all of them, even if the answer is clear before.
        epochs: Of each training; None: those of the sweep file's profile `full`, or else of the study.
        budget: Stop after so much wall time in all sessions together: "2h".
        home: Folder of all state; None: HARNESS_HOME, or `mlruns/` of the checkout.
        workers: Trainings at once; None: one per core or GPU.
        fresh: Keep an earlier verdict under a dated name and start a new one.
        quiet: Print nothing. Else its progress, and in the end the verdict with its tables.
        cluster: A Ray cluster for the workers (docs/cluster/); None: they run on this machine.

    Returns:
        The answer, and all numbers behind it.

    Raises:
        InputError: there is no such study, or no verdict on it as it is asked for.
        TroubleError: the study or its verdict is in use, or data, ledger or workers cannot be had.
        KeyboardInterrupt: it was interrupted.
    """
    from harness.analysis.verdict.table import show_verdict
    from harness.study.spec import parse_duration_s
    from harness.workflows.champion import crowned
    from harness.workflows.verdict import Request, run_verdict

    wall_s = parse_duration_s(budget) if budget else None
    request = Request(top, seeds, epochs, wall_s, takes_all_seeds=all_seeds)
    with _display(quiet) as display:
        end = run_verdict(
            _name(study), request, places.home(home), display, num_workers=workers, fresh=fresh, cluster=cluster
        )
    if end.was_interrupted:
        raise _interrupted(_name(study))
    champion = crowned(places.home(home), end.verdict)
    if not quiet:
        show_verdict(end.verdict, sys.stdout)
        sys.stdout.write(f"{champion}\n")
    return end.verdict


def compare(*studies: str | SweepSpec, home: str | Path | None = None) -> Comparison:
    """Sets studies of one baseline and one fidelity beside each other: `harness compare`.

    Args:
        studies: Names or specs, at least two; those that differ in the search's seed alone are repeats of one method.
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


def sweep_path(sweep: str) -> Path:
    """A file of `sweeps/` by its bare name, or any path."""
    bare = places.sweeps_folder() / f"{sweep}.toml"
    is_known = Path(sweep).name == sweep and os.path.isfile(bare)  # noqa: PTH113 - Path.is_file raises for long names
    return bare if is_known else Path(sweep)


def default_profile() -> str:
    """Full where there is a GPU."""
    from harness.execution.machine.devices import this_machine

    return "full" if this_machine().gpu_names else "quick"


def _name(study: str | SweepSpec) -> str:
    return study if isinstance(study, str) else study.study


def _interrupted(study: str) -> KeyboardInterrupt:
    return KeyboardInterrupt(f"{study} was interrupted; nothing is lost, and the same call goes on from here")


@contextmanager
def open_ledger(home: str | Path | None = None) -> Iterator[Ledger]:
    """A home's ledger for reading, closed in the end; where there is none, an empty one, and none is made."""
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
    """In a notebook, what Optuna and MLflow load warns that it cannot draw progress bars, which nobody wants."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield
