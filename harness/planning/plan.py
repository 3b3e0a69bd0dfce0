"""The plan that a sweep prints before it starts, and the earlier trials that it is based on."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import DamageError, InputError
from harness.execution.base import Place
from harness.execution.machine import backends, devices
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import NUM_KNOWN, CostModel, Floats, Measured, cpu_estimate, gpu_estimate, measured
from harness.planning.forecast import Forecast, Open, TimeLeft
from harness.planning.progress import Progress
from harness.planning.status import Status
from harness.planning.status import status as status_of
from harness.search.constraints import broken_limit
from harness.study.formatting import counted, duration, time_range
from harness.study.records import Device, Params, Trial
from harness.study.settings import Kind
from harness.study.spec import SweepSpec

NUM_SAMPLES = 200
NUM_STUDIES = 10  # newest other studies, whose trials give the speed of the device
NUM_TRIALS = 50  # newest trials of each
NUM_LAST = 20  # newest trials, among which one has a device
START_S = 15.0  # workers load their framework
USUAL_FLOPS_PER_S = 1e11  # of a worker, replaced by measured trials
BFLOAT16_SPEEDUP = 1.6  # of training in bfloat16 where the processor has it: 1.8 for cnn, 1.4 for fc
BFLOAT16_EMULATED = 0.12  # the same where it has not: 47 images/s of cnn per core against 399 in float32, with AVX2


@dataclass(frozen=True)
class Plan:
    """The remaining work of a study.

    Attributes:
        num_left: Remaining trials, including baseline seeds.
        num_baselines: Number of them that are of the baseline.
        time_left: Wall time for all of them, also where a time budget ends before.
        limit_s: Seconds that are left of the time budgets; infinite without one.
        is_measured: Whether trials on this device were measured; without, the time may be wrong by a factor of two.
        num_reusable: Number of the trials that will take over the result of an equal training, as far as known.
    """

    num_left: int
    num_baselines: int
    time_left: TimeLeft
    limit_s: float = math.inf
    is_measured: bool = True
    num_reusable: int = 0


def make_costs(ledger: Ledger, spec: SweepSpec, places: Sequence[Place]) -> CostModel:
    """A study's cost model for a session at these places, with the ledger's measurements on such places."""
    here = {(*_where(place), backends.backend(), spec.precision) for place in places}
    known = [one for one in _measured_before(ledger, spec) if _whereabouts(one.device) in here]
    on_gpu = places[0].gpu is not None
    estimate = (
        _usual(spec, on_gpu) if known or on_gpu else cpu_estimate(_flops_per_s(spec, places[0]) / places[0].sharing)
    )
    return CostModel(spec, estimate, known, typical_params(spec))


def typical_params(spec: SweepSpec) -> list[Params]:
    """Configurations like those of a study's search: random ones within its limits, or all of a small space."""
    if not spec.is_search:
        return [spec.baseline_params, *spec.enqueue]
    rng = random.Random(0)  # noqa: S311 - an estimate
    samples: list[Params] = [spec.search_space.sample(rng) for _ in range(NUM_SAMPLES)]
    return [params for params in samples if broken_limit(spec, params) is None] or samples


def make_plan(progress: Progress, pending: Sequence[Trial], num_workers: int) -> Plan:
    """The plan, based on the ledger's trials on this device."""
    open_ = Open(pending=pending)
    left = progress.forecast(open_, num_workers)
    return Plan(
        num_left=max(0, progress.total - progress.done),
        num_baselines=progress.num_baselines_left,
        time_left=TimeLeft(left.low_s + START_S, left.high_s + START_S),
        limit_s=progress.budget_left_s(0.0, open_, num_workers),
        is_measured=progress.is_measured,
        num_reusable=progress.num_reusable,
    )


def describe(spec: SweepSpec, places: Sequence[Place], plan: Plan) -> list[str]:
    """The plan as lines of text."""
    limits = [_how_many(spec, spec.budget.trials, spec.baseline_seeds)]
    limits += [f"{spec.budget.wall_s / 60:g} minutes"] if spec.budget.wall_s is not None else []
    limits += [f"{spec.budget.device_s / 60:g} minutes of reserved time"] if spec.budget.device_s is not None else []
    share = spec.finalists_share
    finals = [f"the last {100 * share:g} % for further seeds of the best"] if share else []
    return [
        *_subject(spec),
        *device_lines(places, spec.precision),
        *(f"precision {line}" for line in slow_precision(places, spec.precision, _in_float32(spec))),
        f"profile   {spec.profile}: {_images(spec)}, {spec.epochs} epochs",
        *_errors(spec),
        "times     of a trial: building, compiling, training and evaluation together",
        f"budget    {', '.join([', or '.join(limits), *finals])}",
        f"to run    {_to_run(spec, plan)}",
        *(
            [f"reuse     {plan.num_reusable} of them {'is' if plan.num_reusable == 1 else 'are'} in the ledger"]
            if plan.num_reusable
            else []
        ),
    ]


def device_lines(places: Sequence[Place], precision: str) -> Iterator[str]:
    """One line per kind of place, and one for the nodes of a cluster."""
    for kind, count in Counter(map(_where, places)).items():
        device_name, is_gpu, threads, sharing = kind
        size = f", {sharing} per GPU" if is_gpu else f" of {threads} threads"
        yield f"device    {device_name}, {count} workers{size}, {backends.backend()}, {precision}"
    nodes = Counter(place.node for place in places if place.node is not None)
    if nodes:
        yield f"nodes     {', '.join(f'{node} ({count})' for node, count in nodes.items())}"


def slow_precision(places: Sequence[Place], precision: str, otherwise: str) -> Iterator[str]:
    """A line if these places train in bfloat16 for no gain.

    Args:
        places: The places of the workers.
        precision: Of the training.
        otherwise: What else than another machine can be done about it.
    """
    if precision != "bfloat16":
        return
    emulating = next((place for place in places if not place.has_bfloat16), None)
    if emulating:
        yield (
            f"{emulating.device_name} only emulates bfloat16, many times slower than float32: take a machine that"
            f" multiplies it in hardware{otherwise}"
        )
    elif backends.backend() != backends.DEFAULT and any(place.gpu is None for place in places):
        slower = f"bfloat16 may be slower than float32 with {backends.backend()} on CPUs"
        yield f"{slower}: take {backends.DEFAULT}{otherwise}"


def _in_float32(spec: SweepSpec) -> str:
    if spec.kind is Kind.BASELINE:
        return ", or --precision float32"
    return ", or begin a new study by `harness sweep NAME --precision float32`, whose name ends in -float32"


def status_with_time(ledger: Ledger, study: str) -> Status:
    """A study's status with its remaining time. Raises InputError if there is no such study."""
    found = status_of(ledger, study)
    left = time_left(ledger, found)
    return replace(found, time_left=left, elsewhere=_elsewhere(ledger, study) if left else None)


def _elsewhere(ledger: Ledger, study: str) -> str | None:
    """The last device of a study, whose speed its remaining time is of, if this machine has none of its name."""
    records = ledger.newest(study, NUM_LAST)
    ran = [record.result.device.name for record in records if record.result and record.result.device]
    try:
        here = devices.this_machine()
    except InputError:  # the user's choice of GPUs, which matters only to training
        return None
    return ran[-1] if ran and ran[-1] not in (here.cpu_name, *here.gpu_names) else None


def time_left(ledger: Ledger, status: Status) -> TimeLeft | None:
    """Remaining time of a study on its last device; None: nothing is left, or its speed or cost is unknown."""
    spec, records = ledger.study(status.study).spec, ledger.newest(status.study, NUM_KNOWN)
    if not spec.has_code:
        return None
    known = [one for record in records if (one := measured(spec, record))]
    if not known:
        return None
    num_workers = ledger.num_workers(status.study) or known[-1].device.sharing
    costs = CostModel(spec, _usual(spec, known[-1].device.kind == "gpu"), known, typical_params(spec))
    forecast = Forecast(spec, costs, records)
    num_baselines = max(0, spec.baseline_seeds - status.num_baselines)
    num_searched = round(status.trials.left or 0)
    limit_s = min(_budget_left_s(status, num_workers))
    if num_baselines + num_searched == 0 or limit_s <= forecast.quarter_s():
        return None
    return forecast.time_left(Open(), num_baselines, num_searched, num_workers).within(limit_s)


def _budget_left_s(status: Status, num_workers: int) -> Iterator[float]:
    yield math.inf
    if status.wall_s.left is not None:
        yield status.wall_s.left
    if status.device_s.left is not None:
        yield status.device_s.left / num_workers


def _images(spec: SweepSpec) -> str:
    """The training images; a profile may ask for more than the data set has."""
    if spec.train_images == spec.sizes["train"]:
        return f"all {spec.train_images:,} training images of {spec.dataset}"
    return f"{spec.train_images:,} training images"


def _errors(spec: SweepSpec) -> Iterator[str]:
    """What the errors and settings of the trials' lines mean."""
    if spec.trains_on_validation:
        return
    num_images = spec.sizes["validation"]
    few = spec.validation_images < num_images
    before = f", on {spec.validation_images:,} before" if few else ""
    yield f"errors    on {num_images:,} validation images at the end of a trial{before}"
    if spec.is_search:
        yield "settings  those that differ from the documented network are shown"


def _to_run(spec: SweepSpec, plan: Plan) -> str:
    """The remaining trials and their time; a first guess, which may be wrong by a factor of two, warns of nothing."""
    if plan.num_left == 0:
        return "nothing"
    left, limit_s = plan.time_left, plan.limit_s
    what = _how_many(spec, plan.num_left - plan.num_baselines, plan.num_baselines)
    about = f"about {time_range(left.low_s, min(left.high_s, limit_s))}"
    if not plan.is_measured:
        if left.high_s < limit_s:
            return f"{what}, {about} (a first guess)"
        return f"{what}, at most {duration(limit_s)}; the first trials on this device will tell how long"
    if left.low_s < limit_s:
        return f"{what}, {about}"
    whole = time_range(left.low_s, left.high_s)
    return f"{what}, about {whole} in all; {duration(limit_s)} are left, so the last ones will not run"


def _how_many(spec: SweepSpec, num_trials: int, num_baselines: int) -> str:
    trials = [counted(num_trials, "searched trial" if spec.is_search else "training")] if num_trials else []
    seeds = [f"{num_baselines}{'' if trials else ' seeds'} of the baseline"] if num_baselines else []
    return " and ".join([*trials, *seeds]) or "0 trials"


def _subject(spec: SweepSpec) -> list[str]:
    if spec.is_verdict:
        return [
            f"study     {spec.study}: the best {len(spec.enqueue)} and the documented {spec.baseline}, {spec.dataset}",
            f"seeds     from {spec.seed} on, the same for all; each model reads the test images once",
        ]
    return [
        f"study     {spec.study}: {spec.engine} {spec.sampler}, pruner {spec.pruner}, seed {spec.seed}",
        f"baseline  {spec.baseline} on {spec.dataset}, {counted(spec.baseline_seeds, 'seed')}, always first",
    ]


# Measurements in the ledger


def _measured_before(ledger: Ledger, spec: SweepSpec) -> Iterator[Measured]:
    """Newest trials of each study with the same architecture, those of the study itself last."""
    specs = [study.spec for study in ledger.studies()]
    others = [one for one in specs if one.baseline == spec.baseline and one.study != spec.study]
    counts = {one.study: NUM_TRIALS for one in others[-NUM_STUDIES:]} | {spec.study: NUM_KNOWN}
    for one in [*others[-NUM_STUDIES:], spec]:
        try:
            records = ledger.newest(one.study, counts[one.study])
        except DamageError:
            if one.study == spec.study:
                raise
            continue  # another study is unreadable
        yield from filter(None, (measured(one, record) for record in records))


def _where(place: Place) -> tuple[str, bool, int, int]:
    return place.device_name, place.gpu is not None, place.threads, place.sharing


def _whereabouts(device: Device) -> tuple[str, bool, int, int, str, str]:
    return (
        device.name,
        device.kind == "gpu",
        device.threads,
        device.sharing,
        device.backend.split()[0],
        device.precision,
    )


def _usual(spec: SweepSpec, on_gpu: bool) -> Floats:
    """An estimate for devices whose speed comes from measured trials."""
    return gpu_estimate(spec.architecture.GPU_STEP_S) if on_gpu else cpu_estimate(USUAL_FLOPS_PER_S)


def _flops_per_s(spec: SweepSpec, place: Place) -> float:
    """Speed of this machine's processor in the precision of a study."""
    in_bfloat16 = BFLOAT16_SPEEDUP if place.has_bfloat16 else BFLOAT16_EMULATED
    return _gemm_flops_per_s() * (in_bfloat16 if spec.precision == "bfloat16" else 1.0)


def _gemm_flops_per_s() -> float:
    """Floating point operations per second in a matrix product on this machine: the best of a few short ones."""
    side = 1024
    matrix = np.ones((side, side), np.float32)
    return 2 * side**3 / min(_product_s(matrix) for _ in range(10))


def _product_s(matrix: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    np.matmul(matrix, matrix)
    return time.perf_counter() - started
