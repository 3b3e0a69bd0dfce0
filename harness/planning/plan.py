"""The plan that a sweep prints before it starts, and the earlier trials that it is based on."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DamageError
from harness.execution.base import Place
from harness.execution.machine import backends
from harness.ledger.ledger import Ledger
from harness.planning.cost_model import NUM_KNOWN, CostModel, Floats, Measured, cpu_estimate, gpu_estimate, measured
from harness.planning.forecast import Forecast, Open, TimeLeft
from harness.planning.progress import Progress
from harness.planning.status import Status
from harness.search.constraints import broken_limit
from harness.study.formatting import time_range
from harness.study.records import Device, Params, Trial
from harness.study.spec import SweepSpec

NUM_SAMPLES = 200
NUM_STUDIES = 10  # newest other studies, whose trials give the speed of the device
NUM_TRIALS = 50  # newest trials of each
START_S = 15.0  # workers load their framework
USUAL_FLOPS_PER_S = 1e11  # of a worker, replaced by measured trials


@dataclass(frozen=True)
class Plan:
    """The remaining work of a study.

    Attributes:
        num_left: Remaining trials, including baseline seeds.
        time_left: Wall time for them.
        is_cut_short: Whether a time budget will probably end before them.
        num_reusable: Number of them that will take over the result of an equal training, as far as known.
    """

    num_left: int
    time_left: TimeLeft
    is_cut_short: bool
    num_reusable: int = 0


def make_costs(ledger: Ledger, spec: SweepSpec, places: Sequence[Place]) -> CostModel:
    """A study's cost model for a session at these places, with the ledger's measurements on such places."""
    here = {(*_where(place), backends.backend(), spec.precision) for place in places}
    known = [one for one in _measured_before(ledger, spec) if _whereabouts(one.device) in here]
    on_gpu = places[0].gpu is not None
    estimate = _usual(spec, on_gpu) if known or on_gpu else cpu_estimate(_gemm_flops_per_s() / places[0].sharing)
    return CostModel(spec, estimate, known, typical_params(spec))


def typical_params(spec: SweepSpec) -> list[Params]:
    """Configurations like those of a study's search: random ones within its limits, or all of a small space."""
    if not spec.is_search:
        return [spec.baseline_params, *spec.enqueue]
    rng = random.Random(0)  # noqa: S311 - an estimate
    samples: list[Params] = [spec.search_space.sample(rng) for _ in range(NUM_SAMPLES)]
    return [params for params in samples if broken_limit(spec, params) is None] or samples


def make_plan(progress: Progress, pending: Sequence[Trial], num_workers: int) -> Plan:
    """The plan, based on the ledger's trials on this device; without any, it may be wrong by a factor of two."""
    open_ = Open(pending=pending)
    left, limit_s = progress.forecast(open_, num_workers), progress.budget_left_s(0.0, open_, num_workers)
    starting = TimeLeft(left.low_s + START_S, left.high_s + START_S)
    num_left = max(0, progress.total - progress.done)
    return Plan(num_left, starting.within(limit_s), left.low_s >= limit_s, progress.num_reusable)


def describe(spec: SweepSpec, places: Sequence[Place], plan: Plan) -> list[str]:
    """The plan as lines of text."""
    seeds = f" and {spec.baseline_seeds} of the baseline" if spec.baseline_seeds else ""
    limits = [f"{spec.budget.trials} trials{seeds}"]
    limits += [f"{spec.budget.wall_s / 60:g} minutes"] if spec.budget.wall_s is not None else []
    limits += [f"{spec.budget.device_s / 60:g} device minutes"] if spec.budget.device_s is not None else []
    share = spec.finalists_share
    finals = [f"the last {100 * share:g} % for further seeds of the best"] if share else []
    return [
        *_subject(spec),
        *_devices(places, spec.precision),
        f"profile   {spec.profile}: {spec.train_images:,} training images, {spec.epochs} epochs",
        f"budget    {', '.join([', or '.join(limits), *finals])}",
        f"to run    {_to_run(plan)}",
        *([f"reuse     {plan.num_reusable} of them are in the ledger"] if plan.num_reusable else []),
    ]


def _devices(places: Sequence[Place], precision: str) -> Iterator[str]:
    """One line per kind of place, and one for the nodes of a cluster."""
    for kind, count in Counter(map(_where, places)).items():
        device_name, is_gpu, threads, sharing = kind
        size = f", {sharing} per GPU" if is_gpu else f" of {threads} threads"
        yield f"device    {device_name}, {count} workers{size}, {backends.backend()}, {precision}"
    nodes = Counter(place.node for place in places if place.node is not None)
    if nodes:
        yield f"nodes     {', '.join(f'{node} ({count})' for node, count in nodes.items())}"


def time_left(ledger: Ledger, status: Status) -> TimeLeft | None:
    """Remaining time of a study on its last device; None: nothing is left, or its speed is unknown."""
    spec, records = ledger.study(status.study).spec, ledger.newest(status.study, NUM_KNOWN)
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


def _to_run(plan: Plan) -> str:
    if plan.num_left == 0:
        return "nothing"
    if plan.is_cut_short:
        return f"{plan.num_left} trials, probably too many for the time"
    return f"{plan.num_left} trials, about {time_range(plan.time_left.low_s, plan.time_left.high_s)}"


def _subject(spec: SweepSpec) -> list[str]:
    if spec.is_verdict:
        return [
            f"study     {spec.study}: the best {len(spec.enqueue)} and the documented {spec.baseline}, {spec.dataset}",
            f"seeds     from {spec.seed} on, the same for all; each model reads the test images once",
        ]
    return [
        f"study     {spec.study}: {spec.engine} {spec.sampler}, pruner {spec.pruner}, seed {spec.seed}",
        f"baseline  {spec.baseline} on {spec.dataset}, {spec.baseline_seeds} seeds, always first",
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
    return gpu_estimate(spec.baseline) if on_gpu else cpu_estimate(USUAL_FLOPS_PER_S)


def _gemm_flops_per_s() -> float:
    """Floating point operations per second in a matrix product on this machine: the best of a few short ones."""
    side = 1024
    matrix = np.ones((side, side), np.float32)
    return 2 * side**3 / min(_product_s(matrix) for _ in range(10))


def _product_s(matrix: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    np.matmul(matrix, matrix)
    return time.perf_counter() - started
