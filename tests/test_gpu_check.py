"""The check of GPUs: its claims on made-up results, and all of its checks on a CPU, on which some cannot hold."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.bench import engine
from harness.cli import EXIT_INPUT, main
from harness.errors import TroubleError
from harness.execution.base import Place
from harness.execution.machine import backends, devices
from harness.execution.machine.gpus import Gpu
from harness.gpu_check import checks, command, judge
from harness.gpu_check.claims import Check, Claim, State, claim, run_checks
from harness.gpu_check.command import check_places
from harness.gpu_check.frameworks import Seen
from harness.gpu_check.site import REFERENCES, Reference, Site, Sizes
from harness.gpu_check.trainings import Training
from harness.study.records import Device, EpochReport, Outcome, Seconds, TrialResult
from harness.support.own_code import python

UUID = "GPU-aaaaaaaa-1111-2222-3333-444444444444"
H100 = "NVIDIA H100 80GB HBM3"
ON_GPU = Place("worker-0", H100, threads=2, sharing=1, gpu=UUID, has_bfloat16=True)
ON_CPU = Place("worker-0", "a processor", threads=1, sharing=1)
DEVICE = Device(H100, "gpu", "jax 0.11.2", "float32", "compiled+xla", threads=2, sharing=1, gpu_fraction=1.0)
SHARED = dataclasses.replace(DEVICE, sharing=2, gpu_fraction=0.5)
TINY = Sizes(
    epoch_images=256,
    enough_s=1e-9,
    probe_mb=8,
    speed_images=1_024,
    num_rounds=1,
    matrix_side=64,
    references={"fc": Reference(1_000, 3, 20, 45.0, 30.0, "digits")},
)


# Checks and claims


def test_a_check_that_fails_stops_no_other_and_keeps_what_it_has_said() -> None:
    def half(subject: str, deadline_s: float) -> Iterator[Claim]:
        yield claim(f"{subject} is there", True, "yes")
        raise RuntimeError("driver\nhas gone")

    def refused(subject: str, deadline_s: float) -> Iterator[Claim]:
        raise TroubleError("no worker starts")
        yield

    def late(subject: str, deadline_s: float) -> Iterator[Claim]:
        raise TimeoutError
        yield

    def whole(subject: str, deadline_s: float) -> Iterator[Claim]:
        yield claim("it computes", False, "no")

    found = list(run_checks([Check(run.__name__, 7.0, run) for run in (half, refused, late, whole)], "a GPU"))
    assert [(name, one.state, one.seen) for name, one in found] == [
        ("half", State.HOLDS, "yes"),
        ("half", State.UNTRIED, "RuntimeError: driver"),
        ("refused", State.UNTRIED, "no worker starts"),
        ("late", State.UNTRIED, "its time was up (7 s)"),
        ("whole", State.FAILS, "no"),
    ]


def test_what_a_check_leaves_of_its_time_is_for_later_ones() -> None:
    began_s, deadlines_s = time.monotonic(), list[float]()

    def run(subject: None, deadline_s: float) -> Iterator[Claim]:
        deadlines_s.append(deadline_s)
        return iter(())

    assert list(run_checks([Check("one", 10.0, run), Check("two", 20.0, run)], None)) == []
    assert deadlines_s[1] - deadlines_s[0] == pytest.approx(20.0)
    assert deadlines_s[0] >= began_s + 10.0


def test_a_gpu_takes_at_most_six_minutes() -> None:
    assert sum(check.budget_s for check in checks.checks()) + command.LOOK_S <= 360.0


def test_the_documentation_lists_each_check_with_its_seconds() -> None:
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text().partition("## What is measured")[0]
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    with_seconds = [(row[0], row[-1].split()[0]) for row in rows if row[-1].strip()[:1].isdigit()]
    listed = [(name.strip(" `"), float(seconds)) for names, seconds in with_seconds for name in names.split(",")]
    assert listed == [(check.name, check.budget_s) for check in checks.checks()]


# What results say


def result(device: Device = DEVICE, train_s: Sequence[float] = (0.5, 0.4, 0.4), **changes: object) -> TrialResult:
    curve = tuple(
        EpochReport(number, 0.1, 0.1, 2.0, 1_000, Seconds(compile=0.0 if number > 1 else 9.0, train=one_s))
        for number, one_s in enumerate(train_s, start=1)
    )
    seconds = Seconds(build=0.2, compile=9.0, train=sum(train_s), evaluate=0.1)
    known = {
        "seconds": seconds,
        "gpu_busy_time_s": 1.0,
        "gpu_energy_j": 400.0,
        "gpu_peak_memory_mb": 600.0,
        "images_per_s": 1e5,
    }
    return TrialResult(Outcome.PRUNED, curve=curve, device=device, **(known | changes))  # type: ignore[arg-type]


FIRST = result()
SECOND = result(seconds=Seconds(build=0.1, compile=0.5, train=1.3, evaluate=0.1))
FAILED = TrialResult(Outcome.CRASHED, "worker killed by SIGSEGV")


def states(claims: Iterator[Claim]) -> dict[str, State]:
    return {one.text: one.state for one in claims}


def of_pair(first: TrialResult, second: TrialResult, place: Place = ON_GPU) -> dict[str, State]:
    return states(judge.of_pair(Training(first, 11.0), Training(second, 3.0), place))


def test_all_holds_on_a_sound_gpu() -> None:
    found = of_pair(FIRST, SECOND)
    assert set(found.values()) == {State.HOLDS, State.MEASURED}
    (parts,) = (
        one for one in judge.of_pair(Training(FIRST, 11.0), Training(SECOND, 3.0), ON_GPU) if one.numbers.get("build_s")
    )
    assert parts.state is State.MEASURED
    assert parts.numbers["hand_over_s"] == 1.0
    assert parts.seen == (
        "build 0.10, compile 0.50, train 1.30, evaluate 0.10, hand-over 1.00; 3 epochs, 100,000 images/s"
    )


@pytest.mark.parametrize(
    ("first", "second", "text", "state"),
    [
        (FIRST, FAILED, "a trial trains", State.FAILS),
        (result(dataclasses.replace(DEVICE, engine="compiled")), SECOND, "the timing class names the GPU", State.FAILS),
        (result(SHARED), SECOND, "gpu_time_source is", None),
        (result(dataclasses.replace(DEVICE, gpu_fraction=0.0)), SECOND, "gpu_time_source is reserved", State.FAILS),
        (FIRST, result(SHARED), "gpu_time_s is the time", State.FAILS),
        (FIRST, result(gpu_busy_time_s=1.4), "NVML's busy time", State.FAILS),
        (FIRST, result(gpu_busy_time_s=0.0), "NVML's busy time", State.FAILS),
        (FIRST, result(gpu_busy_time_s=None), "NVML's busy time", State.UNTRIED),
        (FIRST, result(gpu_energy_j=0.0), "energy is read", State.FAILS),
        (FIRST, result(gpu_energy_j=None), "energy is read", State.UNTRIED),
        (FIRST, result(gpu_peak_memory_mb=0.0), "peak memory is read", State.FAILS),
        (FIRST, result(gpu_peak_memory_mb=None), "peak memory is read", State.UNTRIED),
        (result(train_s=(9.0, 0.4, 0.4)), SECOND, "the first epoch compiles nothing", State.FAILS),
        (result(train_s=(9.0,)), SECOND, "the first epoch compiles nothing", State.UNTRIED),
        (FIRST, FIRST, "a second trial of the same network compiles nothing", State.FAILS),
    ],
)
def test_each_claim_fails_where_its_number_is_wrong(
    first: TrialResult, second: TrialResult, text: str, state: State | None
) -> None:
    found = {name: one for name, one in of_pair(first, second).items() if name.startswith(text)}
    assert list(found.values()) == [state or State.HOLDS]


def test_a_part_of_a_gpu_is_not_blamed_for_what_it_cannot_read() -> None:
    place = dataclasses.replace(ON_GPU, gpu="MIG-cccc")
    bare = result(gpu_busy_time_s=None, gpu_energy_j=None)
    claims = [
        one for one in judge.of_pair(Training(FIRST, 9.0), Training(bare, 9.0), place) if one.state is State.UNTRIED
    ]
    assert [one.seen for one in claims] == [judge.ONE_OF_MIG] * 2


def test_a_shared_gpu_gives_half_of_its_time_and_no_readings() -> None:
    own = {"gpu_busy_time_s": None, "gpu_energy_j": None}

    def of(one: TrialResult) -> list[State]:
        return list(states(judge.of_sharing([Training(result(SHARED, **own), 5.0), Training(one, 5.0)])).values())

    assert of(result(SHARED, **own)) == [State.HOLDS] * 3 + [State.MEASURED]
    assert of(result(SHARED)) == [State.HOLDS, State.HOLDS, State.FAILS, State.MEASURED]
    assert of(result(**own)) == [State.FAILS, State.FAILS, State.HOLDS, State.MEASURED]
    assert of(FAILED) == [State.FAILS]


def test_lack_of_memory_is_told_from_other_ends() -> None:
    out, done = TrialResult(Outcome.OUT_OF_MEMORY, "x" * 500), TrialResult(Outcome.COMPLETED)
    assert set(states(judge.of_memory(Training(out, 1.0), Training(done, 1.0))).values()) == {State.HOLDS}
    assert set(states(judge.of_memory(Training(FAILED, 1.0), Training(out, 1.0))).values()) == {State.FAILS}
    assert len(next(judge.of_memory(Training(out, 1.0), Training(done, 1.0))).seen) < 200


def test_errors_are_judged_by_the_spread_of_seeds_on_cpus() -> None:
    def of(*errors_pct: float) -> Claim:
        done = [
            TrialResult(Outcome.COMPLETED, final_error_rate_pct=error_pct, final_val_images=10_000)
            for error_pct in errors_pct
        ]
        return judge.of_errors(done, REFERENCES["fc"])

    # t(19, 99 %) = 2.861, times 0.075 %, times the root of 1/20 + 1/3
    assert (of(2.4, 2.5, 2.6).numbers["low_pct"], of(2.4, 2.5, 2.6).numbers["high_pct"]) == (2.33, 2.596)
    assert of(2.4, 2.5, 2.6).state is State.HOLDS
    assert of(2.5, 2.6, 2.8).state is State.FAILS
    assert of(2.2, 2.3, 2.4).state is State.FAILS
    assert judge.of_errors([FAILED], REFERENCES["fc"]).state is State.FAILS


def test_the_references_are_the_published_figures() -> None:
    path = Path(__file__).parents[1] / "docs" / "results" / "bench-precision.csv"
    with path.open() as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    for name, reference in REFERENCES.items():
        row = rows[f"{name}, documented"]
        keys = ("train_images", "epochs", "seeds", "float32_error_pct", "float32_sd_pct")
        assert [float(row[key]) for key in keys] == list(dataclasses.astuple(reference)[:5])


def test_work_that_goes_on_after_a_region_is_noticed() -> None:
    assert judge.of_regions(0.5, 0.01).state is State.HOLDS
    assert judge.of_regions(0.5, 0.1).state is State.FAILS


# On a real device, which is a CPU


@pytest.fixture
def digits(digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for a run on digits; MNIST cannot be had."""

    def prepare(dataset: str, say: object) -> Path:
        if dataset == "mnist":
            raise TroubleError("no place has this data set; tried:\n  here\nPut mnist.npz there.")
        return digits_folder

    monkeypatch.setattr(command.cache, "prepare", prepare)
    return tmp_path / "home"


ON_A_CPU = {
    "device": {State.FAILS: 3, State.UNTRIED: 1},
    "train fc": {State.FAILS: 3, State.UNTRIED: 3, State.MEASURED: 1},
    "sharing": {State.FAILS: 2, State.HOLDS: 1, State.MEASURED: 1},
    "memory": {State.HOLDS: 2},
    "errors fc": {State.HOLDS: 1},
    "speed fc": {},
}


@pytest.mark.parametrize(
    "backend",
    [
        "tensorflow",
        pytest.param(
            "jax",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif("jax" not in backends.installed(), reason="jax is not installed"),
            ],
        ),
    ],
)
def test_every_check_runs_on_real_workers(backend: str, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, backend)
    kept = [dataclasses.replace(check, budget_s=300.0) for check in checks.checks() if check.name in ON_A_CPU]
    monkeypatch.setattr(command, "checks", lambda: kept)
    lines: list[str] = []
    assert not check_places([ON_CPU], digits, lines.append, TINY)
    written = json.loads((digits / command.FILE).read_text())
    (device,) = written["gpus"]
    counts: dict[str, dict[State, int]] = {}
    # The one that depends on seconds holds on JAX alone, which finds in the check's own folder what it has compiled.
    for one in (one for one in device["claims"] if "compiles nothing" not in one["text"]):
        counted = counts.setdefault(one["check"], {})
        counted[State(one["state"])] = counted.get(State(one["state"]), 0) + 1
    many_seeds = backend == "jax"  # is measured in one program
    assert counts == ON_A_CPU | {"speed fc": {State.HOLDS: 1, State.MEASURED: 4 + many_seeds}}, lines
    assert (written["backend"], written["dataset"], device["device"]) == (backend, "digits", "a processor")
    assert lines[0] == "without MNIST, errors cannot be compared with those of CPUs: Put mnist.npz there."
    assert lines[1] == f"a processor (no GPU), {backend}, digits"
    assert lines[2:-2] == [
        command.line(one["check"], Claim(one["text"], State(one["state"]), one["seen"])) for one in device["claims"]
    ]
    assert re.fullmatch(r"of 19 claims \d hold, \d do not, and 5 could not be tried", lines[-2])
    speeds = [one["numbers"]["images_per_s"] for one in device["claims"] if one["text"].startswith("images/s, ")]
    assert len(speeds) == 4 + many_seeds
    assert min(speeds) > 0


def test_errors_are_compared_on_the_same_data_only(digits_folder: Path, tmp_path: Path) -> None:
    site = Site(ON_CPU, "digits", digits_folder, tmp_path)
    (one,) = checks.errors(site, 0.0, baseline="fc")
    assert (one.state, one.seen) == (State.UNTRIED, "mnist is not here; `harness data fetch` brings it")


def test_a_program_that_is_too_slow_has_still_said_something() -> None:
    slow = "import sys, time; print('one'); print('two', end='', flush=True); time.sleep(600)"
    deadline_s = time.monotonic() + 2.0
    assert checks.output(python("-c", slow), ON_CPU, deadline_s) == (["one"], "its time was up")
    with pytest.raises(TimeoutError):
        checks.output(python("-c", "import time; time.sleep(600)"), ON_CPU, time.monotonic() + 0.1)
    with pytest.raises(TimeoutError):
        checks.output(python("-c", "print('one')"), ON_CPU, time.monotonic() - 1.0)
    assert checks.output(python("-c", "print(1); raise ValueError('no')"), ON_CPU, deadline_s + 60.0) == (
        ["1"],
        "ValueError: no",
    )


def test_speeds_that_came_in_time_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(
        {
            "precision": "float32",
            "batch_size": 128,
            "contender": engine.OURS,
            "images_per_s": 1e5,
            "region_s": 0.5,
            "left_over_s": 0.0,
            "share_of_peak": 0.25,
        }
    )
    monkeypatch.setattr(checks, "output", lambda *arguments: ([line], "its time was up"))
    site = Site(ON_GPU, "digits", tmp_path, tmp_path)
    held, speed, missing = checks.speed(site, 0.0, baseline="fc")
    assert held.state is State.HOLDS
    assert speed.seen == "100,000, 25.0% of the speed of large matrix products"
    assert (missing.state, missing.seen) == (State.UNTRIED, "its time was up")


# The command


def test_without_a_gpu_it_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    assert main(["doctor", "--gpu"]) == EXIT_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "harness: --gpu needs an NVIDIA GPU that nvidia-smi lists and CUDA_VISIBLE_DEVICES allows; here is none\n"
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1)])
def test_each_gpu_is_checked_alone(
    holds: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = (Gpu(H100, UUID, has_bfloat16=True), Gpu(H100, UUID.replace("a", "b")))
    monkeypatch.setattr(devices, "this_machine", lambda: devices.Machine("a processor", 8, 1e5, gpus))
    monkeypatch.setattr(command, "_data", lambda say: ("digits", tmp_path))
    monkeypatch.setattr(command, "look", lambda place, asked_mb, deadline_s: Seen("jax 1", place.gpu, (H100,), None, 1))
    seen: list[Place] = []

    def run(site: Site, deadline_s: float) -> Iterator[Claim]:
        seen.append(site.place)
        yield claim("it computes", holds, "so it does")

    monkeypatch.setattr(command, "checks", lambda: [Check("one", 1.0, run)])
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.setenv(backends.VARIABLE, "tensorflow")
    assert main(["doctor", "--gpu"]) == status
    assert [(place.gpu, place.sharing, place.threads) for place in seen] == [(gpu.uuid, 1, 8) for gpu in gpus]
    assert f"wrote {tmp_path / command.FILE}\n" in capsys.readouterr().out


def test_an_interrupted_check_has_written_what_it_found(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(site: Site, deadline_s: float) -> Iterator[Claim]:
        yield claim("it computes", True, "so it does")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "look", lambda place, asked_mb, deadline_s: Seen("jax 1", "", (), None, 1))
    monkeypatch.setattr(command, "checks", lambda: [Check("one", 1.0, run)])
    with pytest.raises(KeyboardInterrupt):
        check_places([ON_CPU], digits, lambda line: None, TINY)
    ((one,),) = [device["claims"] for device in json.loads((digits / command.FILE).read_text())["gpus"]]
    assert (one["check"], one["state"], one["seen"]) == ("one", "holds", "so it does")


@pytest.mark.parametrize(
    ("set_to", "sees", "chosen"),
    [
        (None, {"tensorflow": 1, "jax": 1}, "tensorflow"),
        (None, {"tensorflow": 0, "jax": 1}, "jax"),
        (None, {"tensorflow": None, "jax": 1}, "jax"),
        ("jax", {"tensorflow": 1, "jax": 1}, "jax"),
        (None, {"tensorflow": 0, "jax": 2}, None),
        ("tensorflow", {"tensorflow": 0, "jax": 1}, None),
    ],
)
def test_the_first_backend_that_sees_the_gpu_is_taken(
    set_to: str | None, sees: dict[str, int | None], chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if set_to:
        monkeypatch.setenv(backends.VARIABLE, set_to)
    else:
        monkeypatch.delenv(backends.VARIABLE, raising=False)
    monkeypatch.setattr(backends, "installed", lambda: {"tensorflow": "2.21.0", "jax": "0.11.2"})
    monkeypatch.setattr(command, "_data", lambda say: ("digits", tmp_path))
    monkeypatch.setattr(command, "checks", list)
    monkeypatch.setattr(command, "write_json", lambda path, packages, measured: used.append(measured["backend"]))
    used: list[object] = []

    def look(place: Place, asked_mb: int, deadline_s: float) -> Seen:
        folder = devices.worker_environment(place)["JAX_COMPILATION_CACHE_DIR"]
        assert os.listdir(folder) == [], "a first trial would find itself compiled"  # noqa: PTH208
        count = sees[os.environ[backends.VARIABLE]]
        if count is None:
            raise TroubleError("ImportError: libcudnn is missing")
        return Seen(backends.backend(), UUID, (H100,) * count, None, asked_mb)

    monkeypatch.setattr(command, "look", look)
    lines: list[str] = []
    if chosen is None:
        with pytest.raises(TroubleError, match=f"no backend that is installed here sees {H100}; tried: "):
            check_places([ON_GPU], tmp_path, lines.append, TINY)
    else:
        assert check_places([ON_GPU], tmp_path, lines.append, TINY)
        assert used == [chosen]
        assert f"{H100} ({UUID}), {chosen}, digits" in lines
    assert os.environ.get(backends.VARIABLE) == set_to
