"""Functions that train: they start workers, print the progress, and can be interrupted."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.studies import name_of
from harness.execution.executors import LOCAL, ExecutorSettings
from harness.support import home as places
from harness.support import standard_streams

if TYPE_CHECKING:
    from harness.analysis.verdict.findings import Verdict
    from harness.study.spec import SweepSpec
    from harness.sweep.display import Display
    from harness.sweep.runner import StudyEnd
    from harness.workflows.reproduce import Reproduction


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
        study: Its name, the name of its file in `sweeps/`, or its spec.
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
    from harness.study.settings import parse_duration_s
    from harness.workflows.champion import crowned
    from harness.workflows.verdict import Request, run_verdict

    wall_s = parse_duration_s(budget, "budget") if budget else None
    request = Request(top, seeds, epochs, wall_s, takes_all_seeds=all_seeds)
    name = name_of(study, home)
    with _display(quiet) as display:
        end = run_verdict(
            name,
            request,
            places.home(home),
            display,
            num_workers=workers,
            fresh=fresh,
            executor=executor,
            reuses=reuse,
        )
    if end.was_interrupted:
        raise _interrupted(name)
    champion = crowned(places.home(home), end.verdict)
    if not quiet:
        show_verdict(end.verdict, sys.stdout)
        sys.stdout.write(f"{champion}\n")
    return end.verdict


def reproduce(
    study: str | SweepSpec, trial: int, *, home: str | Path | None = None, quiet: bool = False
) -> Reproduction:
    """Trains a trial again from its record and compares the results: `harness reproduce`.

    Args:
        study: Its name, the name of its file in `sweeps/`, or its spec.
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
        done = train_again(name_of(study, home), trial, places.home(home), display)
    if not quiet:
        sys.stdout.write("".join(f"{line}\n" for line in sentences(done.agreement)))
    return done


def _interrupted(study: str) -> KeyboardInterrupt:
    return KeyboardInterrupt(f"{study} was interrupted; nothing is lost, and the same call continues from here")


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
