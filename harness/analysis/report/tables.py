"""Tables of a report: rows of text, which the page escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from harness.analysis.leaderboard.columns import cell, columns
from harness.analysis.leaderboard.leaderboard import by_configuration
from harness.analysis.report.facts import Facts
from harness.study.formatting import duration, setting
from harness.study.records import Role
from harness.study.settings import Budget
from harness.support.provenance import PACKAGES

TOP = 15


@dataclass(frozen=True)
class Table:
    """Texts, a row each.

    Attributes:
        head: Titles of the columns; empty: each row is a name and its value.
        rows: All of one length.
        marked: Positions of the baseline's rows.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()


def top_trials(facts: Facts) -> Table:
    """The first configurations of the leaderboard, and the baseline at any rank."""
    board = by_configuration(facts.board)
    ranked = board[board["rank"].notna() & (board["epochs"] == facts.spec.epochs)]
    is_baseline = ranked["role"] == Role.BASELINE
    rows = ranked[is_baseline | (np.arange(len(ranked)) < TOP)]
    texts = columns(rows, [facts.spec]) | {name: [cell(value) for value in rows[name]] for name in facts.spec.space}
    return Table(
        [title.replace("\n", " ") for title in texts],
        list(zip(*texts.values(), strict=True)),
        frozenset(place for place, role in enumerate(rows["role"]) if role == Role.BASELINE),
    )


def provenance(facts: Facts) -> Table:
    """Settings, code, versions and machines, a name and a value each."""
    spec, origin = facts.spec, facts.study.provenance
    limits = spec.constraints.model_dump(exclude_none=True)
    versions = [f"{name} {origin[name]}" for name in ("python", *PACKAGES) if origin.get(name)]
    data = f"{spec.dataset}, {spec.train_images:,} training images, {spec.validation_images:,} for each epoch's error"
    rows = [
        ("study", spec.study),
        ("begun", datetime.fromtimestamp(facts.study.created_at).isoformat(" ", "minutes")),
        ("budget", _budget(spec.budget)),
        ("baseline", f"{spec.baseline}, seeds: {spec.baseline_seeds}"),
        ("data", data),
        ("precision", spec.precision),
        ("recipe", ", ".join(f"{key} = {setting(value)}" for key, value in spec.recipe.items())),
        *((f"space.{name}", str(domain)) for name, domain in spec.search_space.domains.items()),
        *((f"constraints.{key}", setting(value)) for key, value in limits.items()),
        ("digest of the settings", spec.digest()),
        ("digest of the data", str(origin.get("data_digest", "not known"))),
        ("code", ", ".join(_commits(facts)) or "not known"),
        ("versions", ", ".join(versions) or "not known"),
        ("platform", str(origin.get("platform", "not known"))),
        *(("timing class", f"{name}: {number} trials") for name, number in facts.timing_classes.most_common()),
    ]
    return Table((), rows)


def _budget(budget: Budget) -> str:
    limits = [f"{budget.trials} trials"]
    limits += [f"{duration(budget.wall_s)} in all"] if budget.wall_s else []
    limits += [f"{duration(budget.device_s)} of reserved time"] if budget.device_s else []
    return ", ".join(limits)


def _commits(facts: Facts) -> list[str]:
    """The commits that trials ran on, each once."""
    origins = [facts.study.provenance, *facts.origins.values()]
    known = [(str(one["git_commit"]), bool(one.get("git_dirty"))) for one in origins if one.get("git_commit")]
    return [commit + " with changes" * is_dirty for commit, is_dirty in sorted(set(known))]
