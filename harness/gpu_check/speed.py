"""A program: images per second of the engine and of Keras's `fit`, in a worker's environment.

Writes a line of JSON for each contender as soon as it is measured, so that a run that is ended early is of use.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from harness.bench import engine
from harness.execution.machine.backends import backend
from harness.gpu_check.frameworks import synchronise

BATCH_SIZES = (128, 1_024)
NUM_SEEDS = 8
TOGETHER = f"{NUM_SEEDS} seeds in one program"  # no sweep trains so yet: what it would gain on this GPU

Bytes = NDArray[np.uint8]
Maker = Callable[..., engine.Epoch]


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
        contender: `engine.OURS`, `engine.STOCK` or `TOGETHER`.
        images_per_s: Median over the rounds; of all seeds together.
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
                num_images = order.num_images // batch_size * batch_size * (NUM_SEEDS if contender == TOGETHER else 1)
                share = num_images / region_s * engine.flops_per_image(network) / peak
                yield Speed(precision, batch_size, contender, num_images / region_s, region_s, left_over_s, share)


def _rounds(
    network: engine.Network, precision: str, batch_size: int, num_rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """(seconds of an epoch, seconds until the device is idle) of each contender in each round, in turns."""
    makers: dict[str, Maker] = {engine.OURS: engine.engine_epoch, engine.STOCK: engine.stock_epoch}
    if backend() == "jax" and batch_size == BATCH_SIZES[0]:
        makers[TOGETHER] = _together_epoch
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


def _together_epoch(
    network: engine.Network, images: Bytes, labels: Bytes, *, precision: str, batch_size: int
) -> engine.Epoch:
    """An epoch of several seeds at once, by JAX's `vmap` over the engine's steps."""
    import jax
    import jax.numpy as jnp

    from harness.execution.training.engine_base import hold
    from harness.execution.training.jax_engine import JaxSteps

    held = hold(images, labels)
    one = JaxSteps(engine.compiled(network, precision), held, held, batch_size, whole_epochs=True)
    state = jax.tree.map(lambda value: jnp.stack([value] * NUM_SEEDS), one.state)
    steps = jax.jit(jax.vmap(one.steps, in_axes=(0, 0, 0, None, None)), donate_argnums=0)
    shape = (NUM_SEEDS, len(images) // batch_size, batch_size)
    rng = np.random.default_rng(0)

    def epoch() -> float:
        nonlocal state
        order = rng.integers(0, len(images), shape, np.int32)
        state, (losses, _) = steps(state, order, np.zeros((*shape, 0), np.float32), held.images, held.labels)
        return float(losses.mean())

    return epoch


def main() -> None:
    settings = json.loads(sys.argv[1])
    for speed in speeds(Order(**settings | {"precisions": tuple(settings["precisions"])})):
        sys.stdout.write(json.dumps(asdict(speed)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
