"""Records from the ledger's rows, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from harness.records import Record, Role, Trial, TrialResult

COLUMNS = (
    "SELECT t.uid, t.number, t.role, t.params, t.seed, t.epochs, t.continues, t.asked_at, t.asks,"
    " t.search_time_s, f.attempt, f.told_at, f.result,"
    " (SELECT count(*) FROM attempts a WHERE a.uid = t.uid),"
    " (SELECT coalesce(sum(a.reserved_time_s), 0) FROM attempts a WHERE a.uid = t.uid)"
)
LAST_REPORT = (
    ", (SELECT e.report FROM epochs e WHERE e.uid = f.uid AND e.attempt = f.attempt ORDER BY e.epoch DESC LIMIT 1)"
)
TRIALS = " FROM trials t LEFT JOIN attempts f ON f.uid = t.uid AND f.told_at IS NOT NULL "


def result_to_json(result: TrialResult) -> str:
    data = dataclasses.asdict(dataclasses.replace(result, curve=(), wrong_images=None, test_wrong_images=None))
    return json.dumps(data)


def images_to_json(images: tuple[int, ...] | None) -> str | None:
    return None if images is None else json.dumps(images)


def with_images(record: Record, wrong: str | None, test_wrong: str | None) -> Record:
    """The record with the images its model got wrong, which come as `images_to_json` wrote them."""
    if record.result is None:
        return record
    result = dataclasses.replace(record.result, wrong_images=_images(wrong), test_wrong_images=_images(test_wrong))
    return dataclasses.replace(record, result=result)


def _images(row: str | None) -> tuple[int, ...] | None:
    return None if row is None else tuple(json.loads(row))


def record(row: tuple[Any, ...], curve: Sequence[str]) -> Record:
    """A record from a row of `COLUMNS` and the JSON of its epochs."""
    uid, number, role, params, seed, epochs, continues, asked_at, asks, search_s, _, told_at, result, tries, held = row
    return Record(
        trial=Trial(uid, number, json.loads(params), seed, epochs, Role(role), continues),
        result=TrialResult.from_json({**json.loads(result), "curve": map(json.loads, curve)}) if result else None,
        asked_at=asked_at,
        told_at=told_at,
        asks=asks,
        attempts=tries,
        reserved_time_s=held,
        search_time_s=search_s,
    )
