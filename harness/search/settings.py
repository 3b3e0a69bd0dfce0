"""Settings of both engines."""

from __future__ import annotations

import hashlib

from harness.study.records import Outcome, Role, Trial
from harness.study.spec import SweepSpec

# Outcomes that show a bad configuration; a crash or a cancelled trial does not.
BAD_OUTCOMES = frozenset({Outcome.DIVERGED, Outcome.INFEASIBLE, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT})


def may_be_stopped(spec: SweepSpec, trial: Trial) -> bool:
    """Whether a pruner sees a trial: it may stop it, and compares others with it.

    It sees the first training of each searched configuration. The baseline's trainings are as good as the best: with
    four of them among the first completed trials, most others would be stopped, and networks that need more epochs with
    them. Further seeds are trained to the end, because a mean without the worse ones would be too low.
    """
    return trial.role is Role.TRIAL and trial.seed == spec.seed


def ask_seed(seed: int, number: int, retry: int) -> int:
    """The random seed of one `ask`, from 1 to 2**31. It does not depend on earlier calls, so resume is exact.

    Hashed, because KerasTuner counts up from it, and neighbouring seeds would draw overlapping numbers.
    """
    digest = hashlib.sha256(f"{seed}/{number}/{retry}".encode()).digest()
    return 1 + int.from_bytes(digest[:4], "big") // 2


def reduction_factor(epochs: int) -> int:
    """The factor by which each rung of a successive halving reduces the number of trials.

    The usual 3 leaves a single halving below 9 epochs (5 epochs: 5 trials of 2, then 2 of 5); 2 gives two
    (6 trials of 2 epochs, 3 of 3, 2 of 5).
    """
    return 3 if epochs >= 9 else 2
