"""A study in a storm: coordinators and workers are killed and interrupted at random, and so is MLflow's server.

When it is over, the study is run to its end in peace, `harness sync` brings the rest to MLflow, and
`harness doctor --audit` recounts everything. Run by `make storm`; exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from killed_sweeps import STUDY, Started, Sweeps
from mlflow_server import Server

from harness.execution.data import cache

SAY_EVERY_S = 10.0
LONGEST_END_S = 60.0  # after Ctrl-C
TRIALS_IN_PEACE = 5
BROKEN_MACHINE = "before they are ready"  # what a coordinator says when too many workers die while they load

MEAN_UP_S = 60.0  # of MLflow's server, before it is killed
MEAN_THAWED_S = 20.0  # before it is made to hang

Say = Callable[[str], None]
Action = Callable[[], None]


@dataclass(frozen=True)
class _Due:
    """Something to come, not before a moment (monotonic) and not before so many trials are done."""

    at: float
    num_done: int
    action: Action


@dataclass
class Storm:
    """What happens to the coordinator, its workers and the server, and how often it did.

    Most ends come some trials after the one before, so that on any machine the study gets on; the others at any time.

    Args:
        sweeps: Starts coordinators.
        server: MLflow's, which is up.
        rng: Decides what happens when.
        say: Takes a line for people.
    """

    sweeps: Sweeps
    server: Server
    rng: random.Random
    say: Say
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._later: list[_Due] = []
        self._start()
        self._soon(self.kill_worker)
        self._in(self.rng.expovariate(1 / MEAN_UP_S), self.kill_server)
        self._in(self.rng.expovariate(1 / MEAN_THAWED_S), self.freeze_server)

    def rage(self, seconds: float) -> None:
        began = said = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            self._look_after_coordinator()
            num_done = self.num_done()
            due = [entry for entry in self._later if entry.at <= now and entry.num_done <= num_done]
            self._later = [entry for entry in self._later if entry not in due]
            for entry in due:
                entry.action()
            if now - said >= SAY_EVERY_S:
                said = now
                self.say(f"{now - began:4.0f} s: {self}")
            time.sleep(0.05)

    def __str__(self) -> str:
        happened = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return f"{happened or 'nothing yet'}; {self.num_done()} trials done"

    def num_done(self, condition: str = "1") -> int:
        rows = self.sweeps.ask(f"SELECT count(*) FROM attempts WHERE told_at IS NOT NULL AND {condition}")  # noqa: S608
        return int(rows[0][0]) if rows else 0

    # When

    def _in(self, seconds: float, action: Action, num_trials: int = 0) -> None:
        """After so many seconds, or when so many trials are done if that is later."""
        self._later.append(_Due(time.monotonic() + seconds, self.num_done() + num_trials, action))

    def _soon(self, action: Action) -> None:
        if self.rng.random() < 0.3:
            self._in(self.rng.uniform(0.0, 10.0), action)
        else:
            self._in(0.0, lambda: self._in(self.rng.uniform(0.0, 3.0), action), self.rng.randint(1, 8))

    # What

    def _start(self) -> None:
        """A coordinator, with how it will end."""
        self._coordinator = self.sweeps.start()
        self._interrupted_at: float | None = None
        end, coordinator = self.rng.choice((self.kill, self.kill, self.interrupt)), self._coordinator
        self._soon(lambda: end(coordinator))

    def kill(self, coordinator: Started) -> None:
        if coordinator is self._coordinator:
            self.counts["coordinators killed"] += 1
            self._replace()

    def interrupt(self, coordinator: Started) -> None:
        if coordinator is not self._coordinator or coordinator.process.poll() is not None:
            return
        if not coordinator.is_listening:
            self._soon(lambda: self.interrupt(coordinator))
            return
        self.counts["interrupted"] += self._interrupted_at is None
        self._interrupted_at = self._interrupted_at or time.monotonic()
        coordinator.send(signal.SIGINT)
        if self.rng.random() < 0.5:
            self._in(self.rng.uniform(0.0, 2.0), lambda: self.interrupt(coordinator))

    def kill_worker(self) -> None:
        workers = self.sweeps.workers()
        if workers:
            self.counts["workers killed"] += 1
            self.rng.choice(list(workers.values())).kill()
        self._soon(self.kill_worker)

    def kill_server(self) -> None:
        self.counts["servers killed"] += 1
        self.server.kill()
        self._in(self.rng.uniform(0.0, 10.0), self._start_server)

    def _start_server(self) -> None:
        self.server.start()
        self._in(self.rng.expovariate(1 / MEAN_UP_S), self.kill_server)

    def freeze_server(self) -> None:
        self.counts["servers frozen"] += 1
        self.server.send(signal.SIGSTOP)
        self._in(self.rng.uniform(0.0, 15.0), self._thaw_server)

    def _thaw_server(self) -> None:
        self.server.send(signal.SIGCONT)
        self._in(self.rng.expovariate(1 / MEAN_THAWED_S), self.freeze_server)

    def _look_after_coordinator(self) -> None:
        """Starts another when it has ended, which it may for a good reason only."""
        if self._coordinator.process.poll() is not None:
            self.problems += self._oddities(self._coordinator)
        elif self._interrupted_at is not None and time.monotonic() - self._interrupted_at > LONGEST_END_S:
            self.problems.append(f"a coordinator went on for {LONGEST_END_S:.0f} s after Ctrl-C")
        else:
            return
        self._replace()

    def _replace(self) -> None:
        with self._coordinator:
            pass
        self._start()

    def _oddities(self, ended: Started) -> Iterator[str]:
        status, errors = ended.wait(), ended.errors
        if status == 1 and BROKEN_MACHINE in errors:
            self.counts["gave up on workers"] += 1
        elif (status, self._interrupted_at is not None) != (130, True):
            yield f"a coordinator ended with status {status}: {errors}"
        if "Traceback" in errors:
            yield f"a coordinator ended with a traceback: {errors}"

    def end(self) -> None:
        """In the middle of whatever is going on."""
        with self._coordinator:
            pass
        self.server.kill()


def audited_in_peace(sweeps: Sweeps, num_trials: int, say: Say) -> Iterator[str]:
    """Runs the study to its end, and names all that is not as it should be then."""
    sweeps.flags = (*sweeps.flags, "--trials", str(num_trials))
    with sweeps.start() as last:
        status = last.process.wait()
        if (status, last.errors) != (0, ""):
            yield f"the last coordinator ended with status {status}: {last.errors}"
    for arguments in (("sync",), ("doctor", "--audit", STUDY)):
        done = sweeps.harness(*arguments)
        say(done.stdout.strip())
        if done.returncode or done.stderr:
            yield f"harness {arguments[0]} ended with status {done.returncode}: {done.stdout}{done.stderr}"
    lost = sweeps.ask("SELECT uid, attempt FROM attempts WHERE outcome IS NULL")
    if lost:
        yield f"attempts without an end: {lost}"
    numbers = [number for (number,) in sweeps.ask("SELECT number FROM trials ORDER BY number")]
    if numbers != list(range(len(numbers))):
        yield f"the trials are numbered {numbers}"


def storm(folder: Path, data_cache: Path, seed: int, seconds: float, say: Say) -> tuple[Counter[str], list[str]]:
    """Returns what happened how often, and all that was not as it should be in the end."""
    server = Server(folder)
    variables = {"MLFLOW_TRACKING_URI": server.uri}
    sweeps = Sweeps(folder, data_cache, ("--profile", "storm", "--workers", "2"), variables)
    server.start()
    raging = Storm(sweeps, server, random.Random(seed), say)
    try:
        raging.rage(seconds)
        raging.end()
        say(f"over: {raging}")
        server.start()
        server.wait_until_it_answers()
        num_searched = raging.num_done("outcome != 'infeasible'")
        raging.problems += audited_in_peace(sweeps, num_searched + TRIALS_IN_PEACE, say)
    finally:
        raging.end()
    return raging.counts, raging.problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="harness-storm-"))
    print(f"seed {options.seed}, {options.minutes:g} minutes, in {folder}", flush=True)
    data_folder = cache.prepare("digits", print).parent
    _, problems = storm(folder, data_folder, options.seed, options.minutes * 60, lambda line: print(line, flush=True))
    if problems:
        print("\n".join(problems), f"all of it lies in {folder}", sep="\n")
        return 1
    shutil.rmtree(folder)
    print("nothing is lost, and nothing is there twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
