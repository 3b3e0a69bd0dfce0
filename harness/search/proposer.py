"""Chooses the next trial, for all engines: the baseline, enqueued configurations, then those of prior and search."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.search import constraints, prior
from harness.search.base import NoProposal, Proposal, Search
from harness.search.encoding import identity
from harness.search.finalists import next_finalist
from harness.search.replay import hear_again
from harness.search.settings import BAD_OUTCOMES, may_be_stopped
from harness.study.comparability import Configuration, Configurations, Key, key_of
from harness.study.records import EpochReport, Params, Record, Role, Trial, TrialResult, without_images
from harness.study.spec import SweepSpec

MAX_DECLINES = 50  # proposals for one trial that repeat tried configurations
MAX_INFEASIBLE = 100  # consecutive proposals that exceed a limit


@dataclass(frozen=True)
class Next:
    """The trial to run next.

    Attributes:
        trial: The trial.
        asks: Number of proposals until one was accepted (0: not from the search).
        search_time_s: Seconds of the search for these proposals.
        infeasible: The limit that it exceeds, if any: then it goes to no worker, and its outcome is INFEASIBLE.
    """

    trial: Trial
    asks: int
    search_time_s: float
    infeasible: str | None = None


class Proposer:
    """Numbers the trials of one study and hands them out. It is built from the records, both at start and at resume.

    Args:
        spec: A study that has passed `catalogue.check`.
        search: A new search from `factory.make_search`.
        records: The study's trials so far.
        learned: Finished trials of another study, converted to this one (see `warm_start`); not counted.

    Attributes:
        configurations: What was trained to the end.
    """

    def __init__(
        self, spec: SweepSpec, search: Search, records: Sequence[Record], learned: Sequence[Record] = ()
    ) -> None:
        self._spec, self._search = spec, search
        self._space, self._centre = spec.search_space, spec.baseline_params
        self._num_baselines = 0
        self._num_infeasible = 0  # consecutive
        self._num_asks = 0  # for the next trial
        self._search_time_s = 0.0  # for the next trial
        self._is_exhausted = False
        self._seeds: dict[str, int] = {}  # by uid
        self._times_tried: Counter[object] = Counter()
        self._num_open: Counter[Key] = Counter()  # trials without a result
        self.configurations = Configurations(spec)
        self._hopeless: set[object] = set()
        for record in learned:
            search.add(record.trial)
            hear_again(spec, search, record)
        # A verdict's trainings have numbers, but the search must not use them.
        self._next_number = 1 + max((record.trial.number for record in records), default=-1)
        own = [record for record in records if record.trial.role is not Role.CONFIRM]
        search.replay(own)
        self._queue = self._still_queued(own)
        for record in sorted(own, key=lambda record: record.asked_at):
            self._remember(record)

    def next(self, *, finals: bool = False) -> Next | NoProposal:
        """The next trial, or why there is none; to be committed before the search gets more results.

        In the `finals` it is a further seed of one of the best configurations, once one was trained to its end.
        """
        if self._num_baselines < self._spec.baseline_seeds:
            return self._known(self._spec.baseline_params, Role.BASELINE)
        if self._queue:
            return self._known(self._queue.pop(0), Role.TRIAL)
        if finals and (finalist := self._next_finalist()):
            return self._known(finalist.params, Role.TRIAL)
        if near := self._near_the_documented():
            return self._known(near, Role.TRIAL)
        started, uid = time.perf_counter(), uuid.uuid4().hex
        proposal = self._accepted_proposal(uid)
        self._search_time_s += time.perf_counter() - started
        if isinstance(proposal, NoProposal):
            return proposal
        return self._counted(self._trial(uid, proposal, Role.TRIAL), self._num_asks, self._search_time_s)

    def report(self, trial: Trial, report: EpochReport) -> bool:
        """Whether the trial continues; after its last epoch it is not stopped."""
        if not may_be_stopped(self._spec, trial):
            return True
        return self._search.report(trial, report) or report.epoch >= trial.epochs

    def tell(self, trial: Trial, result: TrialResult) -> None:
        """Passes a final result to the search."""
        self._search.tell(trial, result)
        self._hear(Record(trial, result))
        if result.outcome in BAD_OUTCOMES:
            self._hopeless.add(identity(self._space, trial.params))

    def _hear(self, record: Record) -> None:
        """Takes in a trial with its final result."""
        self._num_open[key_of(record.trial.params)] -= 1
        self.configurations.add(without_images(record))

    def _next_finalist(self) -> Configuration | None:
        searched = self.configurations.searched
        candidates = [one for one in searched if identity(self._space, one.params) not in self._hopeless]
        return next_finalist(candidates, self.configurations.all, self._num_open)

    def _near_the_documented(self) -> Params | None:
        """A configuration of the prior, if the next trial is to be one. It depends on the number of trials alone."""
        rng = random.Random(f"{self._spec.seed}/{self._next_number}")  # noqa: S311
        if self._spec.prior == "none" or rng.random() >= prior.share(len(self._seeds)):
            return None
        for _ in range(MAX_DECLINES):
            params = prior.draw(self._space, self._centre, rng)
            is_new = not self._times_tried[identity(self._space, params)]
            if is_new and constraints.broken_limit(self._spec, params) is None:
                return params
        return None

    def broken_limit(self, trial: Trial) -> str | None:
        """The limit that a searched trial exceeds, if any; the baseline may exceed limits."""
        return constraints.broken_limit(self._spec, trial.params) if trial.role is Role.TRIAL else None

    def continuable(self) -> frozenset[str]:
        """uids of the trials whose checkpoints are still needed."""
        return self._search.continuable()

    def _known(self, params: Params, role: Role) -> Next:
        started = time.perf_counter()
        trial = self._trial(uuid.uuid4().hex, Proposal(params), role)
        self._search.add(trial)
        return self._counted(trial, 0, time.perf_counter() - started)

    def _accepted_proposal(self, uid: str) -> Proposal | NoProposal:
        """Asks until a proposal is worth running. Proposals declined before a WAIT still count after it."""
        while not self._is_exhausted:
            proposal = self._search.ask(uid, self._next_number, self._num_asks)
            if proposal is NoProposal.WAIT:
                return proposal
            self._num_asks += 1
            if isinstance(proposal, Proposal) and self._is_worth_running(proposal):
                return proposal
            if isinstance(proposal, Proposal):
                self._search.decline(uid)
            self._is_exhausted = proposal is NoProposal.EXHAUSTED or self._num_asks > MAX_DECLINES
        return NoProposal.EXHAUSTED

    def _is_worth_running(self, proposal: Proposal) -> bool:
        """A configuration may be repeated with another seed, a few times, unless it has failed."""
        if proposal.continues is not None:
            return True
        key = identity(self._space, proposal.params)
        return key not in self._hopeless and self._times_tried[key] <= self._spec.max_repeats

    def _trial(self, uid: str, proposal: Proposal, role: Role) -> Trial:
        if proposal.continues is not None:
            seed = self._seeds[proposal.continues]
        else:
            seed = self._spec.seed + self._times_tried[identity(self._space, proposal.params)]
        epochs = proposal.epochs or self._spec.epochs
        return Trial(uid, self._next_number, proposal.params, seed, epochs, role, proposal.continues)

    def _counted(self, trial: Trial, asks: int, search_time_s: float) -> Next:
        self._next_number += 1
        self._remember(Record(trial, asks=asks))
        return Next(trial, asks, search_time_s, self.broken_limit(trial))

    def _remember(self, record: Record) -> None:
        """Counts a trial, past or new."""
        trial, key = record.trial, identity(self._space, record.trial.params)
        self._seeds[trial.uid] = trial.seed
        self._num_baselines += trial.role is Role.BASELINE
        self._times_tried[key] += trial.continues is None
        self._num_open[key_of(trial.params)] += 1
        if record.result is not None:
            self._hear(record)
        if record.result is not None and record.result.outcome in BAD_OUTCOMES:
            self._hopeless.add(key)
        if record.asks:
            self._num_infeasible = self._num_infeasible + 1 if self.broken_limit(trial) else 0
            self._is_exhausted = self._num_infeasible >= MAX_INFEASIBLE
            self._num_asks, self._search_time_s = 0, 0.0

    def _still_queued(self, records: Sequence[Record]) -> list[Params]:
        """The enqueued configurations that have not been handed out yet."""
        handed_out = Counter(
            identity(self._space, record.trial.params)
            for record in records
            if record.trial.role is Role.TRIAL and not record.asks
        )
        queued: list[Params] = []
        for params in self._spec.enqueue:
            key = identity(self._space, params)
            if handed_out[key]:
                handed_out[key] -= 1
            else:
                queued.append(params)
        return queued
