"""Measures search quality with many concurrent trials, when each proposal is based on few results.

The studies use the known function of `bench search` and a simulated clock: training times vary by trial, and results
arrive in the order of their ends. Proposer, search and pruning are those of a sweep.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.bench import synthetic_objective
from harness.search.base import NoProposal
from harness.search.factory import make_search
from harness.search.proposer import Proposer
from harness.study.records import EpochReport, Outcome, Role, Trial, TrialResult

PRUNER = "percentile"
DEVIATION = 0.3  # of the seconds that trials take, relative


@dataclass(frozen=True)
class Crowd:
    """A search with a number of workers."""

    sampler: str
    num_workers: int
    seed: int


@dataclass
class _Study:
    """Concurrent trials, and the results of ended ones."""

    proposer: Proposer
    rng: random.Random
    coming: list[tuple[float, int, Trial, float, list[EpochReport]]] = field(default_factory=list)  # next epochs
    num_ended: int = 0
    least_pct: float = float("inf")  # seen
    true_pct: float = float("nan")  # of the configuration that it was seen of

    def start(self, now: float) -> bool:
        """Whether there was a trial to start."""
        proposed = self.proposer.next()
        if isinstance(proposed, NoProposal):
            return False
        if proposed.infeasible is not None:
            self.proposer.tell(proposed.trial, TrialResult(Outcome.INFEASIBLE, proposed.infeasible))
            return self.start(now)
        epoch_s = self.rng.lognormvariate(0.0, DEVIATION)
        heapq.heappush(self.coming, (now + epoch_s, proposed.trial.number, proposed.trial, epoch_s, []))
        return True

    def advance(self) -> float | None:
        """Brings the next epoch to its end. When that is, if its worker is free then."""
        now, number, trial, epoch_s, curve = heapq.heappop(self.coming)
        curve.append(synthetic_objective.report(trial, len(curve) + 1))
        if self.proposer.report(trial, curve[-1]) and len(curve) < trial.epochs:
            heapq.heappush(self.coming, (now + epoch_s, number, trial, epoch_s, curve))
            return None
        outcome = Outcome.COMPLETED if len(curve) == trial.epochs else Outcome.PRUNED
        self.proposer.tell(trial, TrialResult(outcome, curve=tuple(curve)))
        if trial.role is not Role.BASELINE:  # everybody has it: what counts is what is found besides
            self.num_ended += 1
            if outcome is Outcome.COMPLETED and curve[-1].val_error_rate_pct < self.least_pct:
                self.least_pct = curve[-1].val_error_rate_pct
                self.true_pct = synthetic_objective.error_pct(trial.params)
        return now


def found_pct(crowd: Crowd, num_trials: Sequence[int]) -> list[float]:
    """True error, in percent, of the configuration that looks best when so many trials have ended (ascending)."""
    spec = synthetic_objective.make_spec("optuna", crowd.sampler, PRUNER, crowd.seed)
    study = _Study(Proposer(spec, make_search(spec), []), random.Random(crowd.seed))  # noqa: S311
    for _ in range(crowd.num_workers):
        study.start(0.0)
    found: list[float] = []
    while len(found) < len(num_trials) and study.coming:
        free_at = study.advance()
        if free_at is not None:
            study.start(free_at)
            found += [study.true_pct] if study.num_ended == num_trials[len(found)] else []
    return found
