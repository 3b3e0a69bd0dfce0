"""A program: images per second of the engine and of Keras's `fit`, in a worker's environment.

Writes a line of JSON for each contender as soon as it is measured, so that a run that is ended early is of use.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from harness.bench import engine
from harness.gpu_check.frameworks import synchronise

BATCH_SIZES = (128, 1_024)


@dataclass(frozen=True)
class Order:
    """What to measure: the documented network `baseline`, with random images in rounds of `num_images`."""

    baseline: str
    precisions: tuple[str, ...]
    num_images: int
    num_rounds: int
    matrix_side: int


@dataclass(frozen=True)
class Speed:
    """One contender's speed.

    Attributes:
        precision, batch_size: Of the training.
        contender: `engine.OURS` or `engine.STOCK`.
        images_per_s: Median over the rounds.
        region_s: Seconds of an epoch, as a worker measures them; the median over the rounds.
        left_over_s: Seconds that the device then still works, the median over the rounds.
        share_of_peak: Operations per second, relative to those of a product of large matrices.
    """

    precision: str
    batch_size: int
    contender: str
    images_per_s: float
    region_s: float
    left_over_s: float
    share_of_peak: float


def speeds(order: Order) -> Iterator[Speed]:
    """The speeds of both contenders, precision by precision and batch size by batch size."""
    network = engine.Network(f"{order.baseline}, documented", order.baseline, {}, order.num_images)
    for precision in order.precisions:
        peak = engine.gemm_flops_per_s(precision, order.matrix_side)
        for batch_size in BATCH_SIZES:
            for contender, rounds in _rounds(network, precision, batch_size, order.num_rounds).items():
                region_s, left_over_s = (statistics.median(times) for times in zip(*rounds, strict=True))
                images_per_s = order.num_images // batch_size * batch_size / region_s
                share = images_per_s * engine.flops_per_image(network) / peak
                yield Speed(precision, batch_size, contender, images_per_s, region_s, left_over_s, share)


def _rounds(
    network: engine.Network, precision: str, batch_size: int, num_rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """(seconds of an epoch, seconds until the device is idle) of each contender in each round, in turns."""
    makers = {engine.OURS: engine.engine_epoch, engine.STOCK: engine.stock_epoch}
    data = engine.random_data(network)
    epochs = {name: make(network, *data, precision=precision, batch_size=batch_size) for name, make in makers.items()}
    for epoch in epochs.values():
        epoch()  # compiles
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for _ in range(num_rounds):
        for name, epoch in epochs.items():
            synchronise()
            started_s = time.perf_counter()
            epoch()
            ended_s = time.perf_counter()
            synchronise()
            rounds[name].append((ended_s - started_s, time.perf_counter() - ended_s))
    return rounds


def main() -> None:
    settings = json.loads(sys.argv[1])
    for speed in speeds(Order(**settings | {"precisions": tuple(settings["precisions"])})):
        sys.stdout.write(json.dumps(asdict(speed)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
