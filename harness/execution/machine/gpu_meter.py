"""Measures a GPU while a trial trains: busy time, energy, memory in use.

These values are optional and None if unavailable. NVML, NVIDIA's management library, reports whole devices and the
host's process ids, so it cannot tell trials apart: a shared GPU is not measured.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from harness.execution.base import Place
from harness.execution.machine.gpus import is_instance

INTERVAL_S = 0.1
MIN_TRAIN_S = 1.0  # the longest averaging window of the busy share: a shorter interval would include earlier load


@dataclass(frozen=True)
class Reading:
    """A GPU's values at one moment; None if unavailable.

    Attributes:
        time_s: Monotonic.
        busy_share: Share, 0 to 1, of the last sixth of a second to second in which something ran on it.
        energy_j: Energy used since its driver was loaded.
        power_w: Present power draw.
        memory_mb: Memory in use by all processes.
        num_processes: Number of processes that compute on it.
    """

    time_s: float
    busy_share: float | None = None
    energy_j: float | None = None
    power_w: float | None = None
    memory_mb: float | None = None
    num_processes: int | None = None


class Gauge(Protocol):
    """Reads one GPU."""

    def read(self) -> Reading:
        """Reads the GPU within a few milliseconds; raises nothing."""


class GpuUsage(NamedTuple):
    """A trial's use of its GPU, with the names of `TrialResult`."""

    gpu_busy_time_s: float | None = None
    gpu_energy_j: float | None = None
    gpu_peak_memory_mb: float | None = None


class GpuMeter:
    """Reads a GPU at the start and end of each training region, and at intervals between.

    If a reading fails, the affected values are None and the trial is not disturbed.

    Args:
        gauge: The GPU's gauge; None: no measurement.
        interval_s: Seconds between readings.
    """

    def __init__(self, gauge: Gauge | None, interval_s: float = INTERVAL_S) -> None:
        self._gauge, self._interval_s = gauge, interval_s
        self._regions: list[list[Reading]] = []
        self._has_failed = False

    @contextmanager
    def region(self) -> Iterator[None]:
        if self._gauge is None:
            yield
            return
        readings, is_over = list[Reading](), threading.Event()
        self._regions.append(readings)
        self._take(self._gauge, readings)
        sampler = threading.Thread(target=self._sample, args=(self._gauge, readings, is_over), daemon=True)
        sampler.start()
        try:
            yield
        finally:
            is_over.set()
            sampler.join()
            self._take(self._gauge, readings)

    def usage(self, train_s: float) -> GpuUsage:
        """The use over all regions, which took `train_s` seconds."""
        return self._usage(self._regions, train_s)

    def last_usage(self, train_s: float) -> GpuUsage:
        """The use over the last region, which took `train_s` seconds."""
        return self._usage(self._regions[-1:], train_s)

    def _usage(self, regions: Sequence[Sequence[Reading]], train_s: float) -> GpuUsage:
        readings = [reading for region in regions for reading in region]
        if self._has_failed or any((reading.num_processes or 0) > 1 for reading in readings):
            return GpuUsage()
        memory_mb = [reading.memory_mb for reading in readings if reading.memory_mb is not None]
        pairs = [pair for region in regions for pair in pairwise(region)]
        if train_s < MIN_TRAIN_S:
            pairs = []
        busy_s, energy_j = (_total(of(*pair) for pair in pairs) for of in (_busy_s, _energy_j))
        read_s = sum(reading.time_s - before.time_s for before, reading in pairs)  # a little more than was trained
        return GpuUsage(
            gpu_busy_time_s=None if busy_s is None else round(busy_s / read_s * train_s, 3),
            gpu_energy_j=None if energy_j is None else round(energy_j, 3),
            gpu_peak_memory_mb=max(memory_mb, default=None),
        )

    def _sample(self, gauge: Gauge, readings: list[Reading], is_over: threading.Event) -> None:
        while not is_over.wait(self._interval_s):
            self._take(gauge, readings)

    def _take(self, gauge: Gauge, readings: list[Reading]) -> None:
        try:
            readings.append(gauge.read())
        except Exception:  # a driver may raise any exception
            self._has_failed = True
            traceback.print_exc()  # into the worker's log


def open_gauge(place: Place) -> Gauge | None:
    """NVML's gauge of a GPU that the worker does not share; None without such a GPU or without NVML."""
    if place.gpu is None or place.sharing > 1:
        return None
    try:
        import pynvml
    except ImportError:  # it comes with the extra `gpu`
        return None
    try:
        pynvml.nvmlInit()
        return NvmlGauge(pynvml, place.gpu)
    except pynvml.NVMLError:
        return None


class NvmlGauge:
    """Reads the GPU of a UUID. NVML sees all GPUs of the machine, independent of `CUDA_VISIBLE_DEVICES`."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml, self._handle = nvml, nvml.nvmlDeviceGetHandleByUUID(uuid)
        self._is_instance = is_instance(uuid)

    def read(self) -> Reading:
        nvml, whole = self._nvml, not self._is_instance  # a part of a GPU is asked for what is its own
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo)
        # This version of it by name: the one without does not fail with NVML's error where a driver is older.
        processes = self._ask(nvml.nvmlDeviceGetComputeRunningProcesses_v3)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates) if whole else None
        energy_mj = self._ask(nvml.nvmlDeviceGetTotalEnergyConsumption) if whole else None
        power_mw = self._ask(nvml.nvmlDeviceGetPowerUsage) if whole and energy_mj is None else None
        return Reading(
            time_s=time.monotonic(),
            busy_share=None if rates is None else rates.gpu / 100,
            energy_j=None if energy_mj is None else energy_mj / 1000,
            power_w=None if power_mw is None else power_mw / 1000,
            memory_mb=None if memory is None else memory.used / 2**20,
            num_processes=None if processes is None else len(processes),
        )

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """Calls NVML; None if this GPU or its driver does not support the call."""
        try:
            return question(self._handle)
        except self._nvml.NVMLError:
            return None


def _busy_s(before: Reading, reading: Reading) -> float | None:
    """Busy seconds between readings; a reading describes the time before it."""
    return None if reading.busy_share is None else reading.busy_share * (reading.time_s - before.time_s)


def _energy_j(before: Reading, reading: Reading) -> float | None:
    """Energy from the counter if there is one, else from the mean power."""
    if before.energy_j is not None and reading.energy_j is not None:
        return max(0.0, reading.energy_j - before.energy_j)
    if before.power_w is not None and reading.power_w is not None:
        return (before.power_w + reading.power_w) / 2 * (reading.time_s - before.time_s)
    return None


def _total(parts: Iterable[float | None]) -> float | None:
    """The sum; None if a part is unknown."""
    known = list(parts)
    return sum(part for part in known if part is not None) if known and None not in known else None
