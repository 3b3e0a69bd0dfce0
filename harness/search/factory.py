"""Makes the search of a study."""

from __future__ import annotations

from harness.search.base import Search
from harness.silence import silent_stderr
from harness.spec import SweepSpec


def make_search(spec: SweepSpec) -> Search:
    """The study's search, new; its engine is imported here."""
    if not spec.space:
        from harness.search.nothing import NoSearch

        return NoSearch()
    if spec.engine == "optuna":
        from harness.search.with_optuna import OptunaSearch

        return OptunaSearch(spec)
    with silent_stderr():
        from harness.search.with_keras_tuner import KerasTunerSearch

    return KerasTunerSearch(spec)
