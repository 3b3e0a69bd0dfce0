"""`harness doctor --gpu`: checks each GPU, prints the claims and writes them as JSON."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.bench.results import write_json
from harness.errors import InputError, TroubleError
from harness.execution.base import Place
from harness.execution.data import cache
from harness.execution.machine import backends, devices
from harness.gpu_check.checks import checks, look
from harness.gpu_check.claims import Claim, State, run_checks
from harness.gpu_check.site import Site, Sizes

CHOICES = ("tensorflow", "jax")  # in this order, if KERAS_BACKEND names none
LOOK_S = 30.0  # a backend starts within it
FILE = "gpu-check.json"

Say = Callable[[str], None]


def check_gpus(home: Path, say: Say) -> bool:
    """Checks each GPU for up to six minutes; writes gpu-check.json into `home`.

    Args:
        home: Folder of the harness; made if missing.
        say: Gets each line.

    Returns:
        Whether all holds.

    Raises:
        InputError: there is no GPU here.
        TroubleError: no backend sees the GPU, or a file cannot be written.
    """
    machine = devices.this_machine()
    if not machine.gpus:
        raise InputError(
            "--gpu needs an NVIDIA GPU that nvidia-smi lists and CUDA_VISIBLE_DEVICES allows; here is none"
        )
    places = [devices.places(replace(machine, gpus=(gpu,)), 1)[0] for gpu in machine.gpus]
    return check_places(places, home, say, Sizes())


def check_places(places: Sequence[Place], home: Path, say: Say, sizes: Sizes) -> bool:
    """As `check_gpus`, for these workers, each of which has its device to itself."""
    home.mkdir(parents=True, exist_ok=True)
    dataset, data_folder = _data(say)
    found = [_Found(place) for place in places]
    with tempfile.TemporaryDirectory(prefix="harness-gpu-check-") as folder, _environment(places[0], folder, say):
        name = backends.backend()
        try:
            for one in found:
                say(f"{one.place.device_name} ({one.place.gpu or 'no GPU'}), {name}, {dataset}")
                one.check(Site(one.place, dataset, data_folder, Path(folder), sizes), say)
        finally:  # also what an interrupted command has found
            gpus = [one.as_json() for one in found]
            write_json(home / FILE, ("keras", name), {"backend": name, "dataset": dataset, "gpus": gpus})
    states = Counter(claim.state for one in found for _, claim, _ in one.claims)
    say(_summary(states))
    say(f"wrote {home / FILE}")
    return not states[State.FAILS] and not states[State.UNTRIED]


@dataclass
class _Found:
    """What was found on a device: (check, claim, seconds since its first check began)."""

    place: Place
    claims: list[tuple[str, Claim, float]] = field(default_factory=list)

    def check(self, site: Site, say: Say) -> None:
        began_s = time.monotonic()
        for name, one in run_checks(checks(), site):
            say(line(name, one))
            self.claims.append((name, one, round(time.monotonic() - began_s, 1)))

    def as_json(self) -> dict[str, object]:
        claims = [{"check": name, **asdict(one), "after_s": after_s} for name, one, after_s in self.claims]
        return {"device": self.place.device_name, "uuid": self.place.gpu, "claims": claims}


def _summary(states: Counter[State]) -> str:
    holds, fails, untried = (states[state] for state in (State.HOLDS, State.FAILS, State.UNTRIED))
    num_claims = holds + fails + untried
    return f"of {num_claims} claims {holds} hold, {fails} do not, and {untried} could not be tried"


def line(check: str, one: Claim) -> str:
    """A claim as a line of text."""
    return f"{one.state:<18} {check:<10} {one.text}: {one.seen}"


def _data(say: Say) -> tuple[str, Path]:
    """MNIST, or without it the digits, which are in scikit-learn; and its folder."""
    try:
        return "mnist", cache.prepare("mnist", say)
    except TroubleError as error:
        say(f"without MNIST, errors cannot be compared with those of CPUs: {str(error).splitlines()[-1]}")
        return "digits", cache.prepare("digits", say)


@contextmanager
def _environment(place: Place, folder: str, say: Say) -> Iterator[None]:
    """Within the context, workers take the first backend that sees the place's device, and find nothing compiled.

    Raises:
        InputError: KERAS_BACKEND is wrong.
        TroubleError: no backend sees it.
    """
    before = dict(os.environ)
    asked_for = [backends.backend()] if before.get(backends.VARIABLE) else []
    try:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        candidates = asked_for or [name for name in CHOICES if name in backends.installed()]
        os.environ[backends.VARIABLE] = _first_that_sees(place, candidates, say)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _first_that_sees(place: Place, candidates: Sequence[str], say: Say) -> str:
    num_gpus = 0 if place.gpu is None else 1
    for name in candidates:
        os.environ[backends.VARIABLE] = name
        try:
            seen = look(place, 1, time.monotonic() + LOOK_S)
        except (TroubleError, TimeoutError) as error:
            say(f"{name} does not start: {error or f'not within {LOOK_S:g} s'}")
            continue
        if len(seen.gpus) == num_gpus:
            return name
        say(f"{seen.backend} sees {len(seen.gpus)} GPUs; are its CUDA libraries installed?")
    raise TroubleError(
        f"no backend that is installed here sees {place.device_name}; tried: {', '.join(candidates) or 'none'}"
    )
