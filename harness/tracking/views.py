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

from harness.study.metrics import names
from harness.study.records import Shown

# A pruned trial's error is measured on fewer images and is not ranked.
_RANKED = "tags.outcome = 'completed'"
_FILTERS = {
    "leaderboard": _RANKED,
    "search-space": _RANKED,
    "curves": "tags.role != 'sweep' and attributes.status = 'FINISHED'",
}
_RUN_NAME, _CREATED = "attributes.`Run Name`", "runDateAndNestInfo"  # MLflow's own columns, always there


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


def view_tags(hyperparameters: Sequence[str], created_ms: int, error: str = "error_rate_pct") -> dict[str, str]:
    """The experiment tags with the views of a study that searches `hyperparameters`, sorted by the metric `error`."""
    charts = {View.SEARCH_SPACE: _search_space_charts(hyperparameters, error), View.CURVES: _curve_charts()}
    states = {view: _state(view, _column_widths(hyperparameters, error), charts.get(view, []), error) for view in View}
    tags = {}
    for view, state in states.items():
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        saved = {"name": view.label, "createdAt": created_ms, "updatedAt": created_ms, "state": f"deflate;{packed}"}
        tags[f"mlflow.sharedViewState.{view}"] = json.dumps(saved)
    return tags


def _state(view: View, widths: dict[str, int], sections: Sequence[Section], error: str) -> dict[str, Any]:
    return {
        "searchFilter": _FILTERS[view],
        "orderByKey": _metric(error),
        "orderByAsc": True,
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
    return {
        _RUN_NAME: 120,
        _CREATED: 145,
        "tags.`outcome`": 85,
        _metric(error): 125,
        **{_metric(name): max(92, 8 * len(name)) for name in names(Shown.TABLE)},
        **{f"params.`{name}`": max(75, 9 * len(name)) for name in hyperparameters},
    }


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


class Section:
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


def _search_space_charts(hyperparameters: Sequence[str], error: str) -> list[Section]:
    lines = _chart(
        "PARALLEL",
        selectedParams=list(hyperparameters),
        selectedMetrics=[error],
        showAllRuns=True,
    )
    error_axis = {"key": error, "type": "METRIC"}
    costs = [
        _chart("SCATTER", xaxis={"key": metric, "type": "METRIC"}, yaxis=error_axis)
        for metric in ("device_time_s", "num_params")
    ]
    return [Section("Configurations", 1, 420, [lines]), Section("Error against cost", 2, 360, costs)]


def _curve_charts() -> list[Section]:
    return [
        Section("Validation error by epoch, percent", 1, 420, [_curve("val_error_rate_pct")]),
        Section("Loss by epoch", 2, 360, [_curve("val_loss"), _curve("train_loss")]),
    ]


def _curve(metric: str) -> dict[str, Any]:
    return _chart("LINE", metricKey=metric, displayName=metric, scaleType="log", lineSmoothness=0)
