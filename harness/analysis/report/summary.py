"""A report in a few lines of Markdown, for MLflow's note."""

from __future__ import annotations

from datetime import datetime

from harness.analysis.report import space_check
from harness.analysis.report.headline import cost_lines, headline, verdict_lines
from harness.analysis.report.sections import Material

MAX_CHARACTERS = 3_000  # MLflow limits a note to 8,000, and the note has other parts


def summary(known: Material, made_at: datetime) -> str:
    """The text of the page without figures; the last lines are left out if it is too long."""
    facts = known.facts
    lines = [*verdict_lines(facts)]
    if facts.searched:
        lines += [*cost_lines(facts, known.steps), *space_check.sentences(facts, known.importance)]
    origin = f"By `harness report {facts.spec.study}` on {made_at:%Y-%m-%d %H:%M}, after {len(facts.ended)} trials"
    text = f"### Report\n\n{headline(facts)}\n\n{origin}; its main figures are artifacts under `report`.\n"
    for line in lines:
        if len(text) + len(line) < MAX_CHARACTERS:
            text += f"\n* {line}"
    return text
