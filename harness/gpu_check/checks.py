"""The checks of a GPU, in the order in which they run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

import baselines
from harness.bench import engine
from harness.errors import TroubleError
from harness.execution.base import Place
from harness.execution.machine import devices
from harness.execution.messages import to_json
from harness.gpu_check import judge
from harness.gpu_check.claims import Check, Claim, claim, measured, untried
from harness.gpu_check.frameworks import Seen
from harness.gpu_check.site import REFERENCES, Site
from harness.gpu_check.speed import Order, Speed
from harness.gpu_check.trainings import documented, train_at_once, train_each, trial
from harness.planning.plan import device_lines
from harness.support.own_code import program
from harness.support.redaction import redact
from harness.support.strict_json import parse_json

SEEDS = (0, 1, 2)
MANY_EPOCHS = 10**6  # a training that is stopped by its time
MEMORY_SHARE = 0.9  # of the memory that is taken, which NVML must see


def look(place: Place, asked_mb: int, deadline_s: float) -> Seen:
    """What the backend sees in the environment of a worker at this place.

    Raises:
        TroubleError: it does not start.
        TimeoutError: the deadline came first.
    """
    command = program("harness.gpu_check.frameworks", to_json(place).decode(), str(asked_mb))
    lines, failure = output(command, place, deadline_s)
    if failure is not None:
        raise TroubleError(failure)
    return parse_json(Seen, lines[-1])


def found(site: Site, deadline_s: float) -> Iterator[Claim]:
    """The GPU is found, is the one of the worker, and is shown in a plan."""
    place = site.place
    seen = look(place, site.sizes.probe_mb, deadline_s)
    yield claim(
        "the GPU is found and named by UUID",
        place.gpu is not None and seen.visible == place.gpu,
        f"{place.device_name}, CUDA_VISIBLE_DEVICES={seen.visible}",
        gpu=place.device_name,
        uuid=place.gpu,
    )
    is_named = len(seen.gpus) == 1 and seen.gpus[0] in place.device_name
    yield claim(
        f"{seen.backend} sees this GPU and no other",
        is_named,
        ", ".join(seen.gpus) or "it sees none",
        backend=seen.backend,
        num_gpus=len(seen.gpus),
    )
    text = "NVML reads the GPU on which the framework computes"
    if seen.taken_mb is None:
        yield untried(text, judge.NO_NVML)
    else:
        numbers = {"asked_mb": float(seen.asked_mb), "taken_mb": seen.taken_mb}
        took = f"{seen.taken_mb:.0f} MiB more in use after {seen.asked_mb} MiB were taken"
        yield claim(text, seen.taken_mb >= MEMORY_SHARE * seen.asked_mb, took, **numbers)
    (line,) = device_lines([place], "float32")
    yield claim("a plan names the GPU", place.device_name in line and "1 per GPU" in line, line)


def training(site: Site, deadline_s: float, *, baseline: baselines.Name) -> Iterator[Claim]:
    """Two trials of the documented network one after the other."""
    spec = site.study(baseline, site.sizes.epoch_images, MANY_EPOCHS)
    first, second = train_each(site, spec, documented(MANY_EPOCHS, 0, 1), deadline_s, site.sizes.enough_s)
    yield from judge.of_pair(first, second, site.place)


def sharing(site: Site, deadline_s: float) -> Iterator[Claim]:
    """Two workers on one GPU, with the network that leaves most of it idle."""
    spec, trials = site.study("fc", site.sizes.epoch_images, MANY_EPOCHS), documented(MANY_EPOCHS, 0, 1)
    yield from judge.of_sharing(train_at_once(site, spec, trials, deadline_s, site.sizes.enough_s))


def memory(site: Site, deadline_s: float) -> Iterator[Claim]:
    """A trial whose weights fit into no GPU, and the next one."""
    spec, units = site.study("fc", 1_000, 1), site.sizes.too_many_units
    trials = [trial({"units_1": units}, 1), *documented(1, 1)]
    yield from judge.of_memory(*train_each(site, spec, trials, deadline_s))


def errors(site: Site, deadline_s: float, *, baseline: baselines.Name) -> Iterator[Claim]:
    """The documented network with a few seeds, as it was trained on CPUs."""
    reference = site.sizes.references[baseline]
    if site.dataset != reference.dataset:
        yield untried("errors are those of CPUs", f"{reference.dataset} is not here; `harness data fetch` brings it")
        return
    spec = site.study(baseline, reference.train_images, reference.epochs)
    trainings = train_each(site, spec, documented(reference.epochs, *SEEDS), deadline_s)
    yield judge.of_errors([training.result for training in trainings], reference)


def speed(site: Site, deadline_s: float, *, baseline: baselines.Name) -> Iterator[Claim]:
    """The engine against Keras's `fit`, and what is left of an epoch when its region ends."""
    precisions = ("float32", "bfloat16") if site.place.has_bfloat16 else ("float32",)
    sizes = site.sizes
    order = Order(baseline, precisions, sizes.speed_images, sizes.num_rounds, sizes.matrix_side)
    command = program("harness.gpu_check.speed", json.dumps(asdict(order)))
    lines, failure = output(command, site.place, deadline_s)
    speeds = [parse_json(Speed, line) for line in lines]
    if ours := [one for one in speeds if one.contender == engine.OURS]:
        yield judge.of_regions(ours[0].region_s, ours[0].left_over_s)
    yield from map(_shown, speeds)
    if failure is not None:
        yield untried("speeds of all precisions and batch sizes", failure)


def _shown(speed: Speed) -> Claim:
    return measured(
        f"images/s, {speed.contender}, {speed.precision}, batch size {speed.batch_size}",
        f"{speed.images_per_s:,.0f}, {speed.share_of_peak:.1%} of the speed of large matrix products",
        images_per_s=round(speed.images_per_s),
        share_of_peak=round(speed.share_of_peak, 4),
    )


def output(command: Sequence[str], place: Place, deadline_s: float) -> tuple[list[str], str | None]:
    """The lines that a program printed in a worker's environment until the deadline, and why it failed, if it did.

    Raises:
        TimeoutError: it had printed nothing by then.
    """
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    environment = {**os.environ, **devices.worker_environment(place)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=left_s, check=False)
    except subprocess.TimeoutExpired as error:
        whole = (error.stdout or b"").rpartition(b"\n")[0]  # without a line that has begun
        if not whole:
            raise TimeoutError from None
        return whole.decode().splitlines(), "its time was up"
    lines = done.stdout.decode().splitlines()
    if done.returncode == 0:
        return lines, None
    last_words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return lines, redact(last_words)[:300] or f"ended with status {done.returncode}"


def checks() -> list[Check[Site]]:
    """All checks of a GPU. With the search for a backend they take at most six minutes."""
    return [
        Check("device", 25.0, found),
        *(Check(f"train {name}", 45.0, partial(training, baseline=name)) for name in REFERENCES),
        Check("sharing", 35.0, sharing),
        Check("memory", 35.0, memory),
        *(Check(f"errors {name}", 30.0, partial(errors, baseline=name)) for name in REFERENCES),
        *(Check(f"speed {name}", 40.0, partial(speed, baseline=name)) for name in REFERENCES),
    ]
