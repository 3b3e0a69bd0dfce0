"""Creates the search of a study."""

from __future__ import annotations

from harness.search.base import Search
from harness.study.spec import SweepSpec
from harness.support.stderr import silent_stderr


def make_search(spec: SweepSpec) -> Search:
    """A new search for the study; its engine is imported here."""
    if not spec.is_search:
        from harness.search.null_search import NoSearch

        return NoSearch()
    if spec.engine == "optuna":
        from harness.search.optuna_search import OptunaSearch

        return OptunaSearch(spec)
    with silent_stderr():
        from harness.search.keras_tuner_search import KerasTunerSearch

    return KerasTunerSearch(spec)
