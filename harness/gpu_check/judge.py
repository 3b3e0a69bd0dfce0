"""What the results of trainings say about a GPU. Pure functions of what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from harness.execution.base import Place
from harness.execution.machine.gpus import is_instance
from harness.gpu_check.claims import Claim, claim, measured, untried
from harness.gpu_check.site import Reference
from harness.gpu_check.trainings import Training
from harness.study.records import Device, Outcome, TrialResult

FIRST_EPOCH_FACTOR, FIRST_EPOCH_MORE_S = 1.5, 0.05  # what the first epoch may take, against the median of the others
COMPILED_BEFORE_SHARE = 0.25  # of the first trial's seconds; what is compiled already is still traced
LEFT_OVER_SHARE, LEFT_OVER_S = 0.02, 0.001  # of a region's seconds: the work that may be unfinished at its end
ERRORS_CONFIDENCE = 0.99
MAX_ERROR = 120  # characters of a trial's error
NO_NVML = "NVML gave no reading: is nvidia-ml-py installed, and does no other process use this GPU?"
ONE_OF_MIG = "a part of a GPU (MIG) reports only its memory"


def of_pair(first: Training, second: Training, place: Place) -> Iterator[Claim]:
    """Two trainings of the same network one after the other, each stopped after some epochs."""
    for result in (first.result, second.result):
        if result.outcome is not Outcome.PRUNED or result.device is None:
            yield claim("a trial trains", False, _ended(result))
            return
    yield from _kinds(first.result.device, place)
    yield from _times(second.result)
    yield from _readings(second.result, place)
    yield from _compiling(first.result, second.result)
    yield _parts(second)


def _kinds(device: Device | None, place: Place) -> Iterator[Claim]:
    assert device is not None  # noqa: S101 - for the type checker
    yield claim(
        "the timing class names the GPU, used by one trial, and XLA",
        device.kind == "gpu" and device.timing_class == _expected_class(device, place),
        device.timing_class,
        timing_class=device.timing_class,
    )
    yield claim("gpu_time_source is reserved", device.gpu_time_source == "reserved", device.gpu_time_source)


def _expected_class(device: Device, place: Place) -> str:
    return f"{place.device_name} / {device.backend} / float32 / compiled+xla / 1 per GPU"


def _times(result: TrialResult) -> Iterator[Claim]:
    yield claim(
        "gpu_time_s is the time of the training regions",
        0 < result.gpu_train_time_s == result.train_time_s,
        f"{result.gpu_train_time_s:.3f} s of {result.train_time_s:.3f} s",
        gpu_time_s=result.gpu_train_time_s,
        device_time_s=result.train_time_s,
    )


def _readings(result: TrialResult, place: Place) -> Iterator[Claim]:
    busy_s, energy_j, train_s = result.gpu_busy_time_s, result.gpu_energy_j, result.train_time_s
    is_part = place.gpu is not None and is_instance(place.gpu)
    if busy_s is None:
        yield untried("NVML's busy time lies within the training", ONE_OF_MIG if is_part else NO_NVML)
    else:
        yield claim(
            "NVML's busy time lies within the training",
            0 < busy_s <= train_s,
            f"busy {busy_s:.3f} s, {busy_s / train_s:.0%} of {train_s:.3f} s",
            gpu_busy_time_s=busy_s,
            busy_share=round(busy_s / train_s, 3),
        )
    if energy_j is None:
        yield untried("energy is read", ONE_OF_MIG if is_part else NO_NVML)
    else:
        yield claim(
            "energy is read",
            energy_j > 0,
            f"{energy_j:.0f} J, {energy_j / train_s:.0f} W on average",
            gpu_energy_j=energy_j,
        )
    memory_mb = result.gpu_peak_memory_mb
    if memory_mb is None:
        yield untried("peak memory is read", NO_NVML)
    else:
        yield claim("peak memory is read", memory_mb > 0, f"{memory_mb:.0f} MiB", gpu_peak_memory_mb=memory_mb)


def _compiling(first: TrialResult, second: TrialResult) -> Iterator[Claim]:
    begins_s, *later_s = [report.seconds.train for report in first.curve]
    if not later_s:
        yield untried("the first epoch compiles nothing", "one epoch was trained; two are needed")
    else:
        usual_s = statistics.median(later_s)
        yield claim(
            "the first epoch compiles nothing",
            begins_s <= FIRST_EPOCH_FACTOR * usual_s + FIRST_EPOCH_MORE_S,
            f"the first took {begins_s:.3f} s, the median of {len(later_s)} others {usual_s:.3f} s",
            first_epoch_s=begins_s,
            later_epochs_s=usual_s,
        )
    compile_s, again_s = first.seconds.compile, second.seconds.compile
    yield claim(
        "a second trial of the same network compiles nothing",
        again_s <= COMPILED_BEFORE_SHARE * compile_s,
        f"{compile_s:.2f} s to compile, then {again_s:.2f} s",
        compile_s=compile_s,
        compile_again_s=again_s,
    )


def _parts(training: Training) -> Claim:
    seconds, images_per_s = training.result.seconds, training.result.images_per_s or 0.0
    parts = {
        "build": seconds.build,
        "compile": seconds.compile,
        "train": seconds.train,
        "evaluate": seconds.evaluate,
        "hand_over": training.hand_over_s,
    }
    words = ", ".join(f"{name.replace('_', '-')} {part_s:.2f}" for name, part_s in parts.items())
    return measured(
        "seconds of a trial by part",
        f"{words}; {len(training.result.curve)} epochs, {images_per_s:,.0f} images/s",
        **{f"{name}_s": round(part_s, 3) for name, part_s in parts.items()},
        num_epochs=len(training.result.curve),
        images_per_s=round(images_per_s),
    )


def of_sharing(trainings: Sequence[Training]) -> Iterator[Claim]:
    """Two trainings at once on one GPU."""
    results = [training.result for training in trainings]
    if failed := [result for result in results if result.outcome is not Outcome.PRUNED or result.device is None]:
        yield claim("two workers train on one GPU", False, _ended(failed[0]))
        return
    classes = [result.device.timing_class for result in results if result.device]
    yield claim(
        "times on a shared GPU have a class of their own",
        all(name.endswith(" / 2 per GPU") for name in classes),
        " and ".join(dict.fromkeys(classes)),
        timing_class=classes[0],
    )
    times = [(result.gpu_train_time_s, result.train_time_s) for result in results]
    yield claim(
        "gpu_time_s is half of the time of the training regions",
        all(gpu_s > 0 and math.isclose(gpu_s, train_s / 2) for gpu_s, train_s in times),
        ", ".join(f"{gpu_s:.3f} of {train_s:.3f} s" for gpu_s, train_s in times),
        gpu_time_s=times[0][0],
        device_time_s=times[0][1],
    )
    mixed = [(result.gpu_busy_time_s, result.gpu_energy_j) for result in results]
    yield claim(
        "nothing is read that would mix two trials",
        all(pair == (None, None) for pair in mixed),
        ", ".join(f"busy {busy_s} s, {energy_j} J" for busy_s, energy_j in mixed),
    )
    speeds = [result.images_per_s or 0.0 for result in results]
    yield measured(
        "images/s of two trials at once",
        f"{sum(speeds):,.0f}, of which {speeds[0]:,.0f} and {speeds[1]:,.0f}",
        images_per_s=round(sum(speeds)),
    )


def of_memory(too_large: Training, next_one: Training) -> Iterator[Claim]:
    """A trial that fits into no GPU, and the trial after it on the same place."""
    result = too_large.result
    yield claim(
        "a trial that wants more memory than there is ends as OUT_OF_MEMORY",
        result.outcome is Outcome.OUT_OF_MEMORY,
        f"{_ended(result)}, after {too_large.wall_s:.1f} s",
        outcome=str(result.outcome),
    )
    yield claim(
        "the place goes on with the next trial",
        next_one.result.outcome.is_ranked,
        _ended(next_one.result),
        outcome=str(next_one.result.outcome),
    )


def of_errors(results: Sequence[TrialResult], reference: Reference) -> Claim:
    """The mean error of some seeds against that of other seeds on CPUs.

    The interval is that for the mean of so many further seeds of the same distribution (Student's t).
    """
    from scipy.stats import t

    text = f"errors of {len(results)} seeds are those of CPUs"
    if failed := [result for result in results if not result.outcome.is_ranked]:
        return claim(text, False, _ended(failed[0]))
    errors_pct = [result.error_rate_pct or 0.0 for result in results]
    quantile = float(t.ppf((1 + ERRORS_CONFIDENCE) / 2, reference.num_seeds - 1))
    half_width_pct = quantile * reference.sd_pct * math.sqrt(1 / reference.num_seeds + 1 / len(results))
    low_pct, high_pct = reference.mean_pct - half_width_pct, reference.mean_pct + half_width_pct
    mean_pct = statistics.fmean(errors_pct)
    return claim(
        text,
        low_pct <= mean_pct <= high_pct,
        f"{mean_pct:.3f} % ({', '.join(f'{error_pct:.2f}' for error_pct in errors_pct)}); expected "
        f"{low_pct:.3f} to {high_pct:.3f} % ({ERRORS_CONFIDENCE:.0%}), {reference.train_images:,} images x "
        f"{reference.epochs} epochs",
        error_rate_pct=round(mean_pct, 3),
        low_pct=round(low_pct, 3),
        high_pct=round(high_pct, 3),
    )


def of_regions(region_s: float, left_over_s: float) -> Claim:
    """Seconds of an epoch's region, and those in which the framework then still waits for the GPU."""
    return claim(
        "no work of an epoch is left when its region ends",
        left_over_s <= LEFT_OVER_SHARE * region_s + LEFT_OVER_S,
        f"{1000 * region_s:.1f} ms, then {1000 * left_over_s:.2f} ms until the framework has synchronised",
        region_s=round(region_s, 6),
        left_over_s=round(left_over_s, 6),
    )


def _ended(result: TrialResult) -> str:
    return f"{result.outcome}{f': {result.error[:MAX_ERROR]}' if result.error else ''}"
