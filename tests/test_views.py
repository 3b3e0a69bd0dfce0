"""Saved views: what MLflow's pages read from an experiment's tags."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from harness.tracking.views import View, link, page, run_page, view_tags

NAMES = ["filters_1", "dense_units"]


def state(view: View) -> dict[str, Any]:
    saved = json.loads(view_tags(NAMES, NAMES[:1], 1000)[f"mlflow.sharedViewState.{view}"])
    packing, packed = saved["state"].split(";")
    assert packing == "deflate"
    decoded: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return decoded


def test_a_view_has_its_name_and_the_same_content_each_time() -> None:
    tag = json.loads(view_tags(NAMES, NAMES[:1], 1000)["mlflow.sharedViewState.search-space"])
    assert (tag["name"], tag["createdAt"], tag["updatedAt"]) == ("Search space", 1000, 1000)
    assert view_tags(NAMES, NAMES[:1], 1000) == view_tags(NAMES, NAMES[:1], 1000)


def test_the_leaderboard_is_sorted_by_error_and_shows_error_times_and_hyperparameters() -> None:
    board = state(View.LEADERBOARD)
    assert (board["orderByKey"], board["orderByAsc"]) == ("metrics.`error_rate_pct`", True)
    columns = board["selectedColumns"]
    shown_from_the_start = ["tags.`progress`", "tags.`mean_error`", "tags.`role`"]  # no run has a metric then
    assert columns[:5] == ["metrics.`error_rate_pct`", *shown_from_the_start, "metrics.`device_time_s`"]
    assert set(columns[-3:]) == {"tags.`outcome`", "metrics.`gpu_time_s`", "metrics.`test_error_rate_pct`"}
    assert {"metrics.`gpu_time_s`", "metrics.`device_time_s`"} < set(columns)
    assert {"params.`filters_1`", "params.`dense_units`"} < set(columns)
    assert set(columns) < set(board["columnOrder"]) == set(board["columnWidths"])
    assert board["compareRunCharts"] == []


def test_the_search_space_shows_completed_trials_in_parallel_coordinates_and_against_cost() -> None:
    view = state(View.SEARCH_SPACE)
    assert view["searchFilter"] == "tags.outcome = 'completed'"
    lines, *points = view["compareRunCharts"]
    assert (lines["type"], lines["selectedParams"], lines["selectedMetrics"]) == (
        "PARALLEL",
        NAMES[:1],
        ["error_rate_pct"],
    )
    assert [(p["xaxis"]["key"], p["yaxis"]["key"]) for p in points] == [
        ("device_time_s", "error_rate_pct"),
        ("num_params", "error_rate_pct"),
    ]


@pytest.mark.parametrize("view", View)
def test_every_chart_has_a_key_of_its_own_and_a_section(view: View) -> None:
    charts, sections = state(view)["compareRunCharts"], state(view)["compareRunSections"]
    assert len({chart["uuid"] for chart in charts}) == len(charts)
    assert {chart["metricSectionId"] for chart in charts} == {section["uuid"] for section in sections}
    assert bool(charts) == view.has_charts


def test_curves_are_drawn_by_epoch_as_they_are() -> None:
    view = state(View.CURVES)
    keys = [chart["metricKey"] for chart in view["compareRunCharts"]]
    errors, losses = ["epoch/val_error_rate_pct", "epoch/train_error_rate_pct"], ["epoch/val_loss", "epoch/train_loss"]
    assert keys == [*errors, *losses]
    assert (view["orderByKey"], view["orderByAsc"]) == ("attributes.`start_time`", False)
    assert {c["lineSmoothness"] for c in view["compareRunCharts"]} == {0}
    assert view["globalLineChartConfig"]["xAxisKey"] == "step"


def test_links() -> None:
    assert link("http://host:5000/", "7", View.LEADERBOARD) == (
        "http://host:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=leaderboard"
    )
    assert run_page("7", "ab") == "#/experiments/7/runs/ab?workflowType=machine_learning"
    assert page("7", View.CURVES).endswith("viewStateShareKey=curves&compareRunsMode=CHART")


def test_a_verdict_is_shown_by_its_test_errors() -> None:
    saved = json.loads(view_tags(NAMES, NAMES[:1], 1000, "test_error_rate_pct")["mlflow.sharedViewState.leaderboard"])
    packed = saved["state"].split(";")[1]
    board = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert board["orderByKey"] == "metrics.`test_error_rate_pct`"
    assert "metrics.`error_rate_pct`" not in board["selectedColumns"]
    assert board["selectedColumns"].count("metrics.`test_error_rate_pct`") == 1
