"""What is read off a GPU, with readings that are made up: no GPU is needed."""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.execution.base import Job, Place
from harness.execution.machine import gpu_meter
from harness.execution.machine.gpu_meter import GpuMeter, GpuUsage, Reading, open_gauge
from harness.execution.training.trainer import Trainer
from harness.study.records import Outcome, Trial
from harness.study.spec import SweepSpec

WAIT_S = 60.0
GPUS = ["GPU-aaaa", "GPU-bbbb"]
PART = "MIG-cccc"


class MadeUp:
    """Gives one reading after the other, then the last one until there are new ones."""

    def __init__(self, readings: Sequence[Reading] = ()) -> None:
        self.renew(readings)

    def renew(self, readings: Sequence[Reading]) -> None:
        self._readings = list(readings)
        self.all_read = threading.Event()

    def read(self) -> Reading:
        if len(self._readings) == 1:
            self.all_read.set()
            return self._readings[0]
        return self._readings.pop(0)


def usage(*regions: Sequence[Reading], train_s: float = 10.0) -> GpuUsage:
    """What comes of these readings in these regions; they are taken by the meter's own thread."""
    meter = GpuMeter(gauge := MadeUp(), interval_s=0.0)
    for readings in regions:
        gauge.renew(readings)
        with meter.region():
            assert gauge.all_read.wait(WAIT_S)
    return meter.usage(train_s)


def test_a_reading_tells_how_busy_the_time_before_it_was() -> None:
    readings = [Reading(5.0, busy_share=1.0), Reading(6.0, busy_share=0.5), Reading(8.0, busy_share=0.75)]
    assert usage(readings, train_s=3.0).gpu_busy_time_s == 0.5 * 1 + 0.75 * 2
    assert usage(readings, train_s=2.7).gpu_busy_time_s == 1.8  # the rest of the three seconds was spent on reading


def test_the_last_region_is_told_apart_from_all() -> None:
    meter = GpuMeter(gauge := MadeUp(), interval_s=0.0)
    for busy_share, memory_mb in ((1.0, 900.0), (0.5, 700.0)):
        gauge.renew([Reading(at_s, busy_share=busy_share, memory_mb=memory_mb) for at_s in (0.0, 2.0)])
        with meter.region():
            assert gauge.all_read.wait(WAIT_S)
    last, both = meter.last_usage(2.0), meter.usage(4.0)
    assert (last.gpu_busy_time_s, last.gpu_peak_memory_mb) == (1.0, 700.0)
    assert (both.gpu_busy_time_s, both.gpu_peak_memory_mb) == (3.0, 900.0)


def test_energy_is_what_the_counter_went_up_by() -> None:
    readings = [Reading(0.0, energy_j=1000.0, power_w=5.0), Reading(2.0, energy_j=1700.0, power_w=5.0)]
    assert usage(readings).gpu_energy_j == 700.0


def test_energy_without_a_counter_is_power_over_time() -> None:
    readings = [Reading(0.0, power_w=100.0), Reading(1.0, power_w=300.0), Reading(3.0, power_w=300.0)]
    assert usage(readings).gpu_energy_j == 200 * 1 + 300 * 2


def test_what_happens_between_regions_does_not_count() -> None:
    first = [Reading(0.0, 0.0, 10.0, memory_mb=500.0), Reading(2.0, 0.5, 30.0, memory_mb=700.0)]
    second = [Reading(9.0, 1.0, 900.0, memory_mb=600.0), Reading(10.0, 1.0, 950.0, memory_mb=600.0)]
    assert usage(first, second, train_s=3.0) == GpuUsage(2.0, 70.0, 700.0)


def test_a_part_that_is_not_known_leaves_the_whole_unknown() -> None:
    assert usage([Reading(0.0), Reading(2.0)]) == GpuUsage()
    known = [Reading(0.0, 1.0, 10.0), Reading(2.0, 1.0, 30.0)]
    assert usage(known, [Reading(3.0), Reading(4.0)]) == GpuUsage()


def test_too_little_training_is_not_judged_by_what_came_before() -> None:
    readings = [Reading(0.0, 1.0, 10.0, memory_mb=500.0), Reading(0.5, 1.0, 30.0, memory_mb=500.0)]
    assert usage(readings, train_s=0.5) == GpuUsage(gpu_peak_memory_mb=500.0)


def test_nothing_is_said_where_another_process_is_at_work_too() -> None:
    readings = [Reading(float(t), 1.0, 10.0, memory_mb=500.0, num_processes=1 + (t == 1)) for t in range(3)]
    assert usage(readings) == GpuUsage()
    alone = [Reading(float(t), 1.0, 10.0, memory_mb=500.0, num_processes=1) for t in range(3)]
    assert usage(alone, train_s=2.0) == GpuUsage(2.0, 0.0, 500.0)


def test_no_gauge_is_no_usage() -> None:
    meter = GpuMeter(None)
    with meter.region():
        pass
    assert meter.usage(10.0) == GpuUsage(None, None, None)


def test_reading_ends_with_the_region_however_that_ends() -> None:
    before = threading.active_count()
    meter = GpuMeter(MadeUp([Reading(0.0), Reading(1.0)]))
    with pytest.raises(MemoryError), meter.region():
        raise MemoryError
    assert threading.active_count() == before
    assert meter.usage(10.0) == GpuUsage()


@pytest.mark.parametrize("number", [0, 1])
def test_a_gauge_that_fails_is_no_usage_and_no_failure(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether at the beginning of a region or in the meter's own thread."""

    class Broken(MadeUp):
        def read(self) -> Reading:
            reading, self.num_read = super().read(), self.num_read + 1
            if self.num_read == number + 1:
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "of a driver")
            return reading

    gauge = Broken([Reading(float(t), 1.0, 10.0, memory_mb=500.0) for t in range(3)])
    gauge.num_read = 0
    meter = GpuMeter(gauge, interval_s=0.0)
    with meter.region():
        assert gauge.all_read.wait(WAIT_S)
    assert meter.usage(10.0) == GpuUsage()
    assert "of a driver" in capsys.readouterr().err


class Watt:
    """A GPU that draws 100 W, and always has."""

    def read(self) -> Reading:
        now = time.monotonic()
        return Reading(now, busy_share=1.0, energy_j=100.0 * now, memory_mb=640.0, num_processes=1)


def test_a_trial_says_what_its_gpu_did(smoke: SweepSpec, digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_meter, "MIN_TRAIN_S", 0.0)
    trainer = Trainer(smoke, Place("worker-0", "a processor", threads=1, sharing=1), digits_folder)
    trainer.gauge = Watt()
    result = trainer.run(Job(Trial("uid", 0, {"units_1": 64, "units_2": 64}, seed=0, epochs=3)), lambda report: True)
    assert result.outcome is Outcome.COMPLETED
    assert result.gpu_busy_time_s == pytest.approx(result.seconds.train, abs=2e-3)  # all of it
    assert 100 * result.seconds.train <= result.gpu_energy_j + 0.2  # rounded
    assert result.gpu_peak_memory_mb == 640.0


class Nvml:
    """The part of NVML's Python package that is used, for two GPUs and a part of the second."""

    class NVMLError(Exception):
        pass

    def __init__(self, *unsupported: str) -> None:
        for name in unsupported:
            setattr(self, name, self._fail)

    def _fail(self, *arguments: object) -> None:
        raise self.NVMLError("not supported")

    def nvmlInit(self) -> None:  # noqa: N802 - as NVML calls it
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        if uuid not in (*GPUS, PART):
            self._fail()
        return [*GPUS, PART].index(uuid) + 1

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=10 * handle, memory=0)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        return 1000 * handle

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 100_000 * handle

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=handle * 2**30)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: int) -> list[int]:  # noqa: N802
        return [handle]


def read(monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None, gpu: str | None, sharing: int = 1) -> Reading | None:
    """A worker's reading; its time is left out."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    gauge = open_gauge(Place("worker-0", "an accelerator", 1, sharing, gpu))
    return gauge and gauge.read()


def test_nvml_is_asked_for_the_workers_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", GPUS[1])  # by which the worker's first GPU is NVML's second
    assert read(monkeypatch, Nvml(), GPUS[1]) == Reading(0.0, 0.2, 2.0, None, 2048.0, 1)
    assert read(monkeypatch, Nvml(), GPUS[0]) == Reading(0.0, 0.1, 1.0, None, 1024.0, 1)


def test_an_older_gpu_is_asked_for_its_power(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetComputeRunningProcesses_v3")
    assert read(monkeypatch, nvml, GPUS[0]) == Reading(0.0, 0.1, None, 100.0, 1024.0, None)


def test_a_part_of_a_gpu_has_memory_of_its_own_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, Nvml(), PART) == Reading(0.0, memory_mb=3072.0, num_processes=1)


@pytest.mark.parametrize(
    ("nvml", "gpu", "sharing"),
    [
        (Nvml(), None, 1),
        (Nvml(), GPUS[0], 2),
        (Nvml(), "GPU-dddd", 1),
        (Nvml("nvmlInit"), GPUS[0], 1),
        (None, GPUS[0], 1),
    ],
    ids=["a processor", "a shared GPU", "an unknown GPU", "no driver", "no package"],
)
def test_without_a_gpu_of_its_own_a_worker_reads_nothing(
    monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None, gpu: str | None, sharing: int
) -> None:
    assert read(monkeypatch, nvml, gpu, sharing) is None
