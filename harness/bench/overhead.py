"""Measures the time of a trial besides its training, and its growth with the study.

Only the training is simulated: ledger, search, loop and MLflow store are those of a sweep, and scripted workers answer
at once. The overhead of the workers is measured in a short real study. Wall and CPU seconds are both measured, since a
busy machine increases the former.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.files import write_csv
from harness.analysis.pictures import make_logarithmic, save_picture
from harness.bench import scripted_workers
from harness.bench.results import three_digits, write_json
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import CostModel, cpu_estimate
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.study.records import Record, Role, Seconds
from harness.study.settings import Budget, Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.sweep.checkpoints import Checkpoints
from harness.sweep.display import PlainDisplay
from harness.sweep.loop import Sweep
from harness.sweep.reuse import Reuse
from harness.tracking.study_runs import StudyRuns

if TYPE_CHECKING:
    import pandas as pd

SIZES, SIZES_QUICK = (10, 100, 1_000, 10_000), (10, 100, 1_000)
NUM_TRIALS, NUM_TRIALS_QUICK = 40, 20  # timed at each size
STUDY = "overhead"

# What is timed of a trial's way through the loop; the loop itself is what is left.
ASK, REPORT, COMMIT, LOOP, LOG = "ask", "report and tell", "commit", "loop", "log to MLflow"
TRIAL_PARTS = (ASK, REPORT, COMMIT, LOOP, LOG)
_OF_SOURCE = {"next": ASK, "report": REPORT, "tell": REPORT}
_OF_LEDGER = dict.fromkeys(("propose", "start_attempt", "add_epoch", "finish_attempt", "add_search_time"), COMMIT)
_OF_WORKER = dict.fromkeys(("start", "events", "answer"), "worker")
START, OPEN_RUNS = "start or resume", "compare with MLflow"
BOARD, STATUS, SUMMARY = "leaderboard", "status", "summary to MLflow"
OTHER_PARTS = (START, OPEN_RUNS, BOARD, STATUS, SUMMARY)


@dataclass
class Stopwatch:
    """Adds up wall and CPU seconds by part; nested parts are both counted."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - wall
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - cpu


class _Timed:
    """A proxy of an object that times some of its methods, each as a part."""

    def __init__(self, wrapped: object, watch: Stopwatch, parts: Mapping[str, str]) -> None:
        self._wrapped, self._watch, self._parts = wrapped, watch, parts

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        return self._timed(name, attribute) if name in self._parts else attribute

    def _timed(self, name: str, method: Any) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self._watch.part(self._parts[name]):
                return method(*arguments, **named)

        return timed


@dataclass(frozen=True)
class Timing:
    """A study of one size.

    Attributes:
        num_trials: Finished trials when the timing began.
        trial_s: Wall seconds per trial by part, mean over the added trials.
        trial_cpu_s: The same in CPU seconds.
        other_s: Wall seconds of parts that run once per session or on request.
        other_cpu_s: The same in CPU seconds.
    """

    num_trials: int
    trial_s: dict[str, float]
    trial_cpu_s: dict[str, float]
    other_s: dict[str, float]
    other_cpu_s: dict[str, float]


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Times studies of growing size; writes overhead.json, overhead.csv and overhead.png into `out_dir`.

    Args:
        out_dir: Created if missing; has the studies while they are timed.
        repeats: Number of timed trials at each size; None: 40, or 20 if quick.
        quick: Up to 1,000 trials and not 10,000: within five minutes on two cores.

    Returns:
        The table of overhead.csv: see `table`.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    with _own_store(), tempfile.TemporaryDirectory(prefix=".overhead-", dir=out_dir) as folder:
        num_trials = repeats or (NUM_TRIALS_QUICK if quick else NUM_TRIALS)
        timings = grow(Path(folder), SIZES_QUICK if quick else SIZES, num_trials)
        worker_s = worker_seconds(Path(folder) / "trained")
    frame = table(timings, worker_s)
    write_csv(frame, out_dir / "overhead.csv")
    measured = {
        "load": load,  # of others, when it began: processes that wanted a core
        "timings": [asdict(timing) for timing in timings],
        "worker_s": worker_s,
    }
    write_json(out_dir / "overhead.json", ("optuna", "mlflow", "pydantic"), measured)
    plot(timings, out_dir / "overhead.png")
    return frame


def grow(home: Path, sizes: Sequence[int], num_trials: int) -> list[Timing]:
    """Fills a study in `home` up to each size and times it there."""
    spec = load_sweep(sweeps_folder() / "cnn.toml", Flags(study=STUDY), "quick")
    with closing(Ledger(home / "ledger.db")) as ledger:
        ledger.create_study(spec, {"data_digest": "none"})
        scripted_workers.fill(ledger, spec, spec.baseline_seeds)
        measure(home, ledger, spec, 1)  # loads the libraries
        timings = []
        for size in sizes:
            scripted_workers.fill(ledger, spec, size)
            StudyRuns(home, ledger, spec.study).reconcile("RUNNING")
            timings.append(measure(home, ledger, spec, num_trials))
        return timings


def measure(home: Path, ledger: Ledger, spec: SweepSpec, num_trials: int) -> Timing:
    """Adds trials to a study with the loop of a sweep; times this and the other waits of a user."""
    from harness.analysis.leaderboard.leaderboard import leaderboard
    from harness.planning.status import status

    watch = Stopwatch()
    with watch.part(START):
        records = ledger.history(spec.study)
        proposer = Proposer(spec, make_search(spec), records)
        proposer_ = _Timed(proposer, watch, _OF_SOURCE)
        sweep = _sweep(home, ledger, spec, records, proposer_, watch, num_trials)
    with watch.part(OPEN_RUNS):
        runs = StudyRuns(home, ledger, spec.study)
        runs.reconcile("RUNNING")
    with watch.part(LOOP):
        sweep.run()
    with watch.part(LOG):
        runs.add_new()
    with watch.part(SUMMARY):
        runs.show_progress("RUNNING")
    with watch.part(BOARD):
        write_csv(leaderboard(ledger, [spec.study]), home / "leaderboard.csv")
    with watch.part(STATUS):
        status(ledger, spec.study)
    num_added = len(ledger.history(spec.study)) - len(records)
    return Timing(len(records), *_parts(watch, num_added))


def worker_seconds(home: Path) -> dict[str, float]:
    """Wall seconds by part of a trial of a short study that is trained, the documented CNN's surroundings on digits."""
    from harness.sweep.runner import run_study

    flags = Flags(study=STUDY, dataset="digits", trials=4, budget="10m")
    spec = load_sweep(sweeps_folder() / "cnn.toml", flags, "quick").changed(epochs=1, pruner="none")
    with PlainDisplay(io.StringIO()) as display:
        run_study(spec, home, display, num_workers=1, fresh=False, reuses=False)
    with closing(Ledger(home / "ledger.db")) as ledger:
        trained = [record for record in ledger.history(STUDY) if record.result and record.result.curve]
    seconds = [record.result.seconds if record.result else Seconds() for record in trained]
    held_s = [record.reserved_time_s for record in trained]
    return {
        "build": statistics.median(one.build for one in seconds),
        "trace and compile": statistics.median(one.compile for one in seconds),
        "evaluate": statistics.median(one.evaluate for one in seconds),
        "hand over": statistics.median(held - one.wall for held, one in zip(held_s, seconds, strict=True)),
    }


def table(timings: Sequence[Timing], worker_s: Mapping[str, float]) -> pd.DataFrame:
    """Seconds by part, a column for each size of the study.

    Columns: per ("trial", "session" or "call"), part, then one for each size with wall seconds. The parts of a trial
    are followed by their sum, in wall and in CPU seconds; those of a worker do not depend on the study's size.
    """
    import pandas as pd

    rows = [("trial", part, [timing.trial_s[part] for timing in timings]) for part in TRIAL_PARTS]
    rows.append(("trial", "all of these", [sum(timing.trial_s.values()) for timing in timings]))
    rows.append(("trial", "all of these, CPU", [sum(timing.trial_cpu_s.values()) for timing in timings]))
    rows += [("trial", f"worker: {part}", [seconds] * len(timings)) for part, seconds in worker_s.items()]
    for part in OTHER_PARTS:
        per = "session" if part in (START, OPEN_RUNS) else "call"
        rows.append((per, part, [timing.other_s[part] for timing in timings]))
        rows.append((per, f"{part}, CPU", [timing.other_cpu_s[part] for timing in timings]))
    sizes = [f"{timing.num_trials:,} trials" for timing in timings]
    return pd.DataFrame(
        [
            {"per": per, "part": part} | dict(zip(sizes, map(three_digits, values), strict=True))
            for per, part, values in rows
        ]
    )


def plot(timings: Sequence[Timing], path: Path) -> None:
    """Wall seconds against the number of trials, logarithmic both ways: per trial, and per session or call."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = [timing.num_trials for timing in timings]
    for part in TRIAL_PARTS:
        left.plot(sizes, [timing.trial_s[part] for timing in timings], marker=".", label=part)
    left.plot(sizes, [sum(timing.trial_s.values()) for timing in timings], color="black", label="together")
    left.set_ylabel("seconds per trial")
    for part in OTHER_PARTS:
        right.plot(sizes, [timing.other_s[part] for timing in timings], marker=".", label=part)
    right.set_ylabel("seconds each time")
    make_logarithmic((left, right), "finished trials")
    save_picture(figure, path)


def _sweep(
    home: Path,
    ledger: Ledger,
    spec: SweepSpec,
    records: Sequence[Record],
    source: Any,
    watch: Stopwatch,
    num_trials: int,
) -> Sweep:
    """A sweep with this number of trials."""
    num_done = sum(record.trial.role is Role.TRIAL for record in records)
    spec = spec.changed(budget=Budget(trials=num_done + num_trials))
    worker: Any = _Timed(scripted_workers.ScriptedWorkers(), watch, _OF_WORKER)
    timed_ledger: Any = _Timed(ledger, watch, _OF_LEDGER)
    display, costs = PlainDisplay(io.StringIO()), CostModel(spec, cpu_estimate(1e11))
    checkpoints = Checkpoints(spec, home / "checkpoints")
    reuse = Reuse(spec, timed_ledger, checkpoints)
    return Sweep(spec, timed_ledger, records, source, worker, [], display, checkpoints, costs, reuse=reuse)


def _parts(watch: Stopwatch, num_added: int) -> Iterator[dict[str, float]]:
    """What `Timing` holds of either clock: per trial, and each time."""
    for clock in (watch.wall_s, watch.cpu_s):
        within = sum(clock.get(part, 0.0) for part in (ASK, REPORT, COMMIT, "worker"))
        whole = {part: clock.get(part, 0.0) for part in TRIAL_PARTS} | {LOOP: clock[LOOP] - within}
        yield {part: seconds / num_added for part, seconds in whole.items()}
    for clock in (watch.wall_s, watch.cpu_s):
        yield {part: clock[part] for part in OTHER_PARTS}


@contextmanager
def _own_store() -> Iterator[None]:
    """Uses the folder's own MLflow store instead of the user's."""
    uri = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        if uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = uri
