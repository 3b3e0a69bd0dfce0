"""Differences between an MLflow run and its required content, in words; none if they are equal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.tracking.content import Point, RunContent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LONG, _BEFORE = 60, 20  # shown characters of a text, and those before the first difference


def run_differences(run: Run, content: RunContent) -> Iterator[str]:
    """Differences in the results of a search: status, tags, parameters, and the newest value of each metric.

    Other tags than those of `content` are ignored: users may add their own.
    """
    if run.info.status != content.status:
        yield f"status is {run.info.status}, should be {content.status}"
    ours = content.tags.keys() | content.own_tags
    yield from _unlike("tag", {key: run.data.tags[key] for key in run.data.tags.keys() & ours}, content.tags)
    yield from logged_differences(run, content)


def logged_differences(run: Run, content: RunContent) -> Iterator[str]:
    """The differences that MLflow may not be able to undo, since logged values are permanent."""
    extra = run.data.params.items() & content.extra_params.items()
    yield from _unlike("parameter", run.data.params, content.params | dict(extra))
    yield from _unlike("metric", run.data.metrics, content.metrics)


def curve_differences(client: MlflowClient, run: Run, content: RunContent) -> Iterator[str]:
    """Differences of each curve, point by point, with one request per curve. Passes on MLflow's exceptions."""
    for key, points in _curves(content).items():
        history = client.get_metric_history(run.info.run_id, key) if key in run.data.metrics else []
        found: dict[int, list[float]] = defaultdict(list)
        for point in history:
            found[point.step].append(point.value)
        yield from _unlike(f"curve {key}, step", found, {point.step: [point.value] for point in points})


def _curves(content: RunContent) -> dict[str, list[Point]]:
    """The metrics with more points than a summary's single one at step 0."""
    points: dict[str, list[Point]] = defaultdict(list)
    for point in content.points:
        points[point.key].append(point)
    return {key: of_key for key, of_key in points.items() if any(point.step > 0 for point in of_key)}


def _unlike(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> Iterator[str]:
    """Each key whose values differ, or which is on one side only."""
    for key in sorted({*found, *expected}):
        if key not in found:
            yield f"{what} {key} is missing, should be {_excerpt(_text(expected[key]))}"
        elif key not in expected:
            yield f"{what} {key} is {_excerpt(_text(found[key]))}, should not be there"
        elif found[key] != expected[key]:
            is_, should_be = _text(found[key]), _text(expected[key])
            start = _parting(is_, should_be)
            yield f"{what} {key} is {_excerpt(is_, start)}, should be {_excerpt(should_be, start)}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return str(value).replace("\n", " ")


def _parting(first: str, second: str) -> int:
    """Start of the shown part of two texts, so that their first difference is visible."""
    if max(len(first), len(second)) <= _LONG:
        return 0
    same = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), _LONG)
    return max(0, same - _BEFORE)


def _excerpt(text: str, start: int = 0) -> str:
    end = start + _LONG
    return f"{'...' if start else ''}{text[start:end]}{'...' if len(text) > end else ''}"
