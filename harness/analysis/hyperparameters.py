"""Hyperparameters as columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from harness.study.records import Params
from harness.study.space import Choice, Domain, Int
from harness.study.spec import SweepSpec

_OF_CHOICES = {int: "Int64", bool: "boolean", float: "float64", str: "str"}


def hyperparameters(specs: Iterable[SweepSpec]) -> list[str]:
    """The hyperparameters that any of these studies searches, in the order of their sweep files."""
    return list(dict.fromkeys(name for spec in specs for name in spec.space))


def hyperparameter_columns(spec: SweepSpec, rows: Sequence[Params], index: pd.Index) -> dict[str, pd.Series]:
    """A column per hyperparameter of a study, with missing values where it is inactive."""
    return {
        name: pd.Series([row.get(name) for row in rows], index=index, dtype=dtype(domain))
        for name, domain in spec.search_space.domains.items()
    }


def dtype(domain: Domain) -> str:
    """The column type for all values of `domain` without loss, and missing ones."""
    if isinstance(domain, Choice):
        return _OF_CHOICES[type(domain.options[0])]
    return "Int64" if isinstance(domain, Int) else "float64"
