"""What a sweep is about to do, said before it starts."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import baselines
from harness.execution import Place
from harness.ledger import Usage
from harness.records import Params
from harness.search.limits import broken_limit
from harness.spec import SweepSpec

NUM_SAMPLES = 200
BACKWARD_AND_FORWARD = 3.0  # training takes about three times the operations of a forward pass
# Shares of the measured GEMM peak that training reached on CPUs; a GPU is assumed to train this many images a second.
CPU_EFFICIENCY = {"cnn": 0.35, "fc": 0.5}
GPU_IMAGES_PER_S = {"cnn": 30_000.0, "fc": 100_000.0}
START_S = 15.0  # workers load their framework
PER_TRIAL_S = 3.0  # building, tracing, evaluating


@dataclass(frozen=True)
class Plan:
    """The work that is left of a study.

    Attributes:
        num_left: Trials still to be run, baseline seeds included.
        minutes: A rough estimate of the wall time for them.
    """

    num_left: int
    minutes: float


def make_plan(spec: SweepSpec, places: list[Place], used: Usage, num_proposed: int) -> Plan:
    """Estimates from operation counts and a short measurement of this machine; may be off by a factor of two."""
    num_left = max(0, spec.budget.trials - used.trials) + max(0, spec.baseline_seeds - num_proposed)
    seconds = START_S + num_left * _trial_s(spec, places[0]) / len(places)
    if spec.budget.wall_s is not None:
        seconds = min(seconds, max(0.0, spec.budget.wall_s - used.wall_s))
    return Plan(num_left, seconds / 60)


def describe(spec: SweepSpec, places: list[Place], plan: Plan) -> list[str]:
    """The plan in lines for people."""
    first = places[0]
    device = f"{first.device_name}, {len(places)} workers of {first.threads} threads"
    if first.gpu is not None:
        device = f"{first.device_name}, {len(places)} workers, {first.sharing} per GPU"
    limits = [f"{spec.budget.trials} trials"]
    limits += [f"{spec.budget.wall_s / 60:g} minutes"] if spec.budget.wall_s is not None else []
    limits += [f"{spec.budget.device_s / 60:g} device minutes"] if spec.budget.device_s is not None else []
    return [
        *_subject(spec),
        f"device    {device}",
        f"profile   {spec.profile}: {spec.train_images:,} training images, {spec.epochs} epochs",
        f"budget    {' or '.join(limits)}; {plan.num_left} to run, about {max(1, round(plan.minutes))} minutes",
    ]


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


def _trial_s(spec: SweepSpec, place: Place) -> float:
    images = spec.train_images * spec.epochs
    if place.gpu is not None:
        return images / GPU_IMAGES_PER_S[spec.baseline] + PER_TRIAL_S
    speed = _gemm_flops_per_s() / place.sharing * CPU_EFFICIENCY[spec.baseline]
    return images * BACKWARD_AND_FORWARD * _mean_flops_per_image(spec) / speed + PER_TRIAL_S


def _mean_flops_per_image(spec: SweepSpec) -> float:
    rng, cost = random.Random(0), baselines.load(spec.baseline).cost  # noqa: S311 - an estimate
    if not spec.space:
        return cost(spec.config({})).flops_per_image
    samples: list[Params] = [spec.search_space.sample(rng) for _ in range(NUM_SAMPLES)]
    allowed = [params for params in samples if broken_limit(spec, params) is None] or samples
    if spec.is_verdict:
        allowed = [spec.baseline_params, *spec.enqueue]
    return sum(cost(spec.config(params)).flops_per_image for params in allowed) / len(allowed)


def _gemm_flops_per_s() -> float:
    """Floating point operations a second of this machine's matrix product: the best of a few short ones."""
    side = 1024
    matrix = np.ones((side, side), np.float32)
    return 2 * side**3 / min(_product_s(matrix) for _ in range(10))


def _product_s(matrix: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    np.matmul(matrix, matrix)
    return time.perf_counter() - started
