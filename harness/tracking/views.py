"""Saved views of an experiment. MLflow's default page shows no metric columns and no charts; a link to a view does.

A view is a tag of the experiment; MLflow 3.17 reads it if its key is in the page's address.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from harness.study.metrics import EPOCH_METRICS, names
from harness.study.records import Shown
from harness.tracking.content import MEAN, PROGRESS

# A running trial has no error that is ranked yet, and comes last, as does the study's own run. That one is in the table
# before the first trial is.
_FILTERS = {
    "leaderboard": "tags.outcome != 'pruned' and tags.outcome != 'infeasible' and attributes.status != 'FAILED'",
    "search-space": "tags.outcome = 'completed'",
    "curves": "tags.role != 'sweep' and tags.outcome != 'infeasible'",
}
_RUN_NAME, _CREATED = "attributes.`Run Name`", "runDateAndNestInfo"  # MLflow's own columns, always there
_LOSSES = ("val_loss", "train_loss")
_LAST_COLUMNS = ("gpu_time_s", "test_error_rate_pct")  # 0 without a GPU; none in a search


class View(StrEnum):
    """The views of a study; the value is the key in links and must not change."""

    LEADERBOARD = "leaderboard"
    SEARCH_SPACE = "search-space"
    CURVES = "curves"

    @property
    def label(self) -> str:
        return self.value.replace("-", " ").capitalize()

    @property
    def has_charts(self) -> bool:
        return self is not View.LEADERBOARD


def link(base_url: str, experiment_id: str, view: View) -> str:
    """The address of a view for a browser."""
    return f"{base_url.rstrip('/')}/{page(experiment_id, view)}"


def page(experiment_id: str, view: View) -> str:
    """The same within MLflow's own pages."""
    charts = "&compareRunsMode=CHART" if view.has_charts else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={view}{charts}"


def run_page(experiment_id: str, run_id: str) -> str:
    """The page of a run within MLflow's own pages."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def view_tags(
    hyperparameters: Sequence[str], drawn: Sequence[str], created_ms: int, error: str = "error_rate_pct"
) -> dict[str, str]:
    """The experiment tags with the views of a study, sorted by the metric `error`.

    Args:
        hyperparameters: The searched ones.
        drawn: Those that every run has, for a chart with a line for each run.
        created_ms: When the study was created, milliseconds since 1970.
        error: The metric.
    """
    charts = {View.SEARCH_SPACE: _search_space_charts(drawn, error), View.CURVES: _curve_charts()}
    states = {view: _state(view, _column_widths(hyperparameters, error), charts.get(view, []), error) for view in View}
    tags = {}
    for view, state in states.items():
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        saved = {"name": view.label, "createdAt": created_ms, "updatedAt": created_ms, "state": f"deflate;{packed}"}
        tags[f"mlflow.sharedViewState.{view}"] = json.dumps(saved)
    return tags


def _state(view: View, widths: dict[str, int], sections: Sequence[Charts], error: str) -> dict[str, Any]:
    is_by_error = view is not View.CURVES  # there the newest come first, with those that run
    return {
        "searchFilter": _FILTERS[view],
        "orderByKey": _metric(error) if is_by_error else "attributes.`start_time`",
        "orderByAsc": is_by_error,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [column for column in widths if column not in (_RUN_NAME, _CREATED)],
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [chart for section in sections for chart in section.charts],
        "compareRunSections": [section.state for section in sections],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # sections in our order, not by name
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _column_widths(hyperparameters: Sequence[str], error: str) -> dict[str, int]:
    """The table's columns from left to right, with their widths in pixels, which fit a common screen."""
    numbers = {_metric(name): max(92, 8 * len(name)) for name in names(Shown.TABLE) if name != error}
    last = {key: width for key, width in numbers.items() if key in map(_metric, _LAST_COLUMNS)}
    return {
        _RUN_NAME: 120,
        _metric(error): 125,
        _tag(PROGRESS): 165,  # shown from the start of a trial, when no run has a metric
        _tag(MEAN): 125,
        _tag("role"): 75,
        **{key: width for key, width in numbers.items() if key not in last},
        **{f"params.`{name}`": max(75, 9 * len(name)) for name in hyperparameters},
        _CREATED: 145,
        _tag("outcome"): 85,
        **last,
    }


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


class Charts:
    """A heading with charts side by side."""

    def __init__(self, name: str, num_columns: int, height: int, charts: Sequence[dict[str, Any]]) -> None:
        uuid = name.lower().replace(" ", "-")
        self.state = {
            "uuid": uuid,
            "name": name,
            "display": True,
            "isReordered": False,
            "deleted": False,
            "isGenerated": False,
            "columns": num_columns,
            "cardHeight": height,
        }
        self.charts = [{**chart, "metricSectionId": uuid, "uuid": f"{uuid}-{i}"} for i, chart in enumerate(charts)]


def _chart(kind: str, **settings: Any) -> dict[str, Any]:
    return {"type": kind, "runsCountToCompare": 100, "deleted": False, "isGenerated": False, **settings}


def _search_space_charts(drawn: Sequence[str], error: str) -> list[Charts]:
    lines = _chart(
        "PARALLEL",
        selectedParams=list(drawn),
        selectedMetrics=[error],
        showAllRuns=True,
    )
    error_axis = {"key": error, "type": "METRIC"}
    costs = [
        _chart("SCATTER", xaxis={"key": metric, "type": "METRIC"}, yaxis=error_axis)
        for metric in ("device_time_s", "num_params")
    ]
    return [Charts("Configurations", 1, 420, [lines]), Charts("Error against cost", 2, 360, costs)]


def _curve_charts() -> list[Charts]:
    return [
        Charts("Validation error", 1, 420, [_curve("val_error_rate_pct")]),
        Charts("Training error and losses", 3, 360, [_curve("train_error_rate_pct"), *map(_curve, _LOSSES)]),
    ]


def _curve(name: str) -> dict[str, Any]:
    key = next(metric.curve for metric in EPOCH_METRICS if metric.name == name)
    return _chart("LINE", metricKey=key, displayName=name, scaleType="log", lineSmoothness=0)
