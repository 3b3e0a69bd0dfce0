"""Searches for a network with a given error, each as one program: what `bench target` starts.

    python -m harness.bench.time_to_target CONTENDER HUNT.json FOLDER

A hunt ends when a network trained in full is at least as good on the validation images as asked for, and still is in
the mean over itself and a second seed; it then prints what it took. The peers search as their own guides do it; the
harness searches as its command does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.stock import arrays, chosen, compiled, recipe_of, suggested
from harness.bench.target import CONFIRMING_SEED, Effort, Hunt
from harness.search.constraints import broken_limit
from harness.search.factory import make_search
from harness.study.records import Params
from harness.support import keras_settings

STARTED = time.monotonic()


@dataclass
class Stock:
    """The data of a peer's own program as floats, and a record of its trainings.

    Attributes:
        hunt: The target of the search.
        device_s: Seconds of `fit` and `evaluate`, on all cores.
        num_trainings: Number of started trainings.
    """

    hunt: Hunt
    device_s: float = 0.0
    num_trainings: int = 0
    _arrays: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from harness.execution.data import cache

        spec = self.hunt.spec()
        folder, all_images = cache.prepare(spec.data, lambda line: None), spec.sizes["validation"]
        self._arrays["train"] = arrays(spec.data, "train", folder, spec.train_images)
        self._arrays["each epoch"] = arrays(spec.data, "validation", folder, spec.validation_images)
        self._arrays["at the end"] = arrays(spec.data, "validation", folder, all_images)

    def model(self, params: Params) -> Any:
        spec = self.hunt.spec()
        return compiled(spec.baseline, params, spec.train_images, spec.epochs)

    def fit(self, model: Any, params: Params, **more: Any) -> dict[str, list[float]]:
        settings = {"epochs": self.hunt.spec().epochs, "batch_size": recipe_of(params).batch_size, "verbose": 0} | more
        started = time.monotonic()
        history = model.fit(*self._arrays["train"], validation_data=self._arrays["each epoch"], **settings)
        self.device_s += time.monotonic() - started
        self.num_trainings += 1
        found: dict[str, list[float]] = history.history
        return found

    def error_pct(self, model: Any) -> float:
        started = time.monotonic()
        _, accuracy = model.evaluate(*self._arrays["at the end"], batch_size=500, verbose=0)
        self.device_s += time.monotonic() - started
        return 100.0 * (1.0 - float(accuracy))

    def ends_with(self, model: Any, params: Params) -> float:
        """Records the error of a network trained in full; ends the program if it reaches the target."""
        import keras

        error_pct = self.error_pct(model)
        if error_pct <= self.hunt.target_pct:
            keras.utils.set_random_seed(CONFIRMING_SEED)
            again = self.model(params)
            self.fit(again, params)
            if (error_pct + self.error_pct(again)) / 2 <= self.hunt.target_pct:
                end(self.device_s, self.num_trainings, was_found=True)
        return error_pct


def end(device_s: float, num_trainings: int, *, was_found: bool) -> None:
    """Prints the effort and ends the program at once, without cleanup by libraries."""
    effort = Effort(time.monotonic() - STARTED, device_s, num_trainings, was_found)
    sys.stdout.write(json.dumps(asdict(effort)) + "\n")
    sys.stdout.flush()
    os._exit(0)


def optuna(hunt: Hunt, folder: Path, *, is_random: bool) -> None:
    """TPE and the median pruner, as `optuna.create_study` has them by default; or random search without pruning."""
    import keras
    import optuna as library

    stock, spec = Stock(hunt), hunt.spec()
    space = spec.search_space

    def objective(trial: library.Trial) -> float:
        keras.backend.clear_session()
        params = suggested(trial, space)
        if broken_limit(spec, params):
            raise library.TrialPruned

        class Report(keras.callbacks.Callback):  # type: ignore[misc] # untyped
            def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
                trial.report(1.0 - logs["val_accuracy"], epoch)
                self.model.stop_training = trial.should_prune()

        model = stock.model(params)
        stock.fit(model, params, callbacks=[Report()])
        if model.stop_training:
            raise library.TrialPruned
        return stock.ends_with(model, params)

    samplers = library.samplers
    sampler = samplers.RandomSampler(seed=hunt.seed) if is_random else samplers.TPESampler(seed=hunt.seed)
    pruner = library.pruners.NopPruner() if is_random else library.pruners.MedianPruner()
    library.create_study(sampler=sampler, pruner=pruner).optimize(objective, n_trials=hunt.max_trials)
    end(stock.device_s, stock.num_trainings, was_found=False)


def keras_tuner(hunt: Hunt, folder: Path) -> None:
    """Hyperband with its defaults, repeated until it reaches the target."""
    import keras_tuner as kt

    spec, stock = hunt.spec(), Stock(hunt)
    space = spec.search_space

    class Networks(kt.HyperModel):  # type: ignore[misc] # untyped
        def build(self, hp: Any) -> Any:
            params = chosen(hp, space)
            if broken_limit(spec, params):
                raise kt.errors.FailedTrialError("too large")
            return stock.model(params)

        def fit(self, hp: Any, model: Any, *_: Any, epochs: int, initial_epoch: int = 0, **more: Any) -> Any:
            params, continued = chosen(hp, space), {"epochs": epochs, "initial_epoch": initial_epoch}
            history = stock.fit(model, params, **continued, callbacks=more["callbacks"])
            if epochs == spec.epochs:
                stock.ends_with(model, params)
            if stock.num_trainings >= hunt.max_trials:
                end(stock.device_s, stock.num_trainings, was_found=False)
            return {name: values[-1] for name, values in history.items()}

    tuner = kt.Hyperband(
        Networks(), kt.Objective("val_accuracy", "max"), max_epochs=spec.epochs, hyperband_iterations=hunt.max_trials,
        seed=hunt.seed + 1, directory=folder, overwrite=True, max_consecutive_failed_trials=hunt.max_trials,
    )  # fmt: skip
    tuner.search(verbose=0)
    end(stock.device_s, stock.num_trainings, was_found=False)


def ours(hunt: Hunt, folder: Path) -> None:
    """The study as `harness sweep` runs it, with a second seed for what looks good enough."""
    from contextlib import closing

    from harness.bench.confirming import Confirming
    from harness.ledger.ledger import Ledger
    from harness.search.proposer import Proposer
    from harness.study.records import Role
    from harness.sweep.display import PlainDisplay
    from harness.sweep.runner import run_trials

    spec = hunt.spec()
    source = Confirming(Proposer(spec, make_search(spec), []), spec, hunt.target_pct)
    with (folder / "log").open("w") as log:
        run_trials(
            spec,
            folder,
            PlainDisplay(log),
            lambda spec, ledger, records: source,
            num_workers=None,
            fresh=False,
            reuses=False,
        )
    with closing(Ledger(folder / "ledger.db")) as ledger:
        # Trainings of the documented network do not count: its error, the target, is known before.
        records = [record for record in ledger.history(spec.study) if record.trial.role is not Role.BASELINE]
    trained = [record for record in records if record.result and record.result.device]
    # A worker uses its share of the cores only.
    shares = [record.reserved_time_s / record.result.device.sharing for record in trained]  # type: ignore[union-attr]
    end(sum(shares), len(trained), was_found=source.is_found)


CONTENDERS: dict[str, Callable[[Hunt, Path], None]] = {
    "harness": ours,
    "keras-tuner hyperband": keras_tuner,
    "optuna tpe, median pruner": lambda hunt, folder: optuna(hunt, folder, is_random=False),
    "random": lambda hunt, folder: optuna(hunt, folder, is_random=True),
}

if __name__ == "__main__":
    keras_settings.pin()
    hunt = Hunt(**json.loads(Path(sys.argv[2]).read_text()))
    CONTENDERS[sys.argv[1]](hunt, Path(sys.argv[3]))
