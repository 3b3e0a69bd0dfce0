"""One of each message between a coordinator and a worker."""

from pathlib import Path

from filled_ledger import CPU, make_spec

from harness.execution.base import Job, Place
from harness.execution.messages import Report, Setup
from harness.study.records import EpochReport, Outcome, Seconds, Trial, TrialResult
from harness.support import own_code

TRIAL = Trial("uid", 0, {"units_1": 16}, 0, 3)
JOB = Job(TRIAL, load_from=Path("a b/ä.weights.h5"))
PLACE = Place("worker-0", "a processor", 1, 1)
SETUP = Setup(make_spec(), PLACE, Path("data"), own_code.digest())


def epoch(number: int) -> EpochReport:
    return EpochReport(number, 0.5, None, 3.0, 200, Seconds(train=1.0))


RESULT = TrialResult(
    Outcome.COMPLETED, None, (epoch(1),), Seconds(train=1.0), 10, 512.0, CPU, (1, 2), None, 99.5, 1.5, 200
)
REPORTS = [Report(ready=True), *(Report(epoch=epoch(number)) for number in (1, 2, 3)), Report(result=RESULT)]
