"""The HTML of a report: one self-contained file, which opens offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from harness.analysis.report.facts import Facts
from harness.analysis.report.headline import headline, headline_lines, is_better, outcome_line, subject, verdict_lines
from harness.analysis.report.sections import Section
from harness.analysis.report.tables import Table, provenance
from harness.study.formatting import duration, of_seeds

_FOLDER = Path(__file__).parent

# The page can send no request, for any content.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


def page(facts: Facts, sections: Sequence[Section], made_at: datetime) -> str:
    """A whole HTML document. All text from users and from errors is escaped; nothing is loaded from elsewhere."""
    title = escape(f"{facts.spec.study}: report")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{title}</title><style>{_file('page.css')}</style></head><body>",
            *_top(facts, sections),
            "<main>",
            *(line for section in sections for line in _section(section)),
            *_origin(facts, made_at),
            "</main>",
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{_file('page.js')}</script>",
            "</body></html>",
        ]
    )


def _top(facts: Facts, sections: Sequence[Section]) -> Iterator[str]:
    yield f'<header><h1>{escape(facts.spec.study)}</h1><p class="subject">{escape(subject(facts.spec))}.</p>'
    links = [*((section.key, section.title) for section in sections), ("provenance", "Provenance")]
    yield "<nav>" + "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in links) + "</nav></header>"
    yield '<main><div class="tiles">' + "".join(_tile(*pair) for pair in _tiles(facts)) + "</div>"
    good = " good" if is_better(facts) else ""
    yield f'<div class="answer{good}" id="headline"><p><strong>{escape(headline(facts))}</strong></p>'
    yield _list([*headline_lines(facts), outcome_line(facts)])
    verdict = verdict_lines(facts)
    if verdict:
        yield f"<h2>Verdict</h2>{_list(verdict)}"
    yield "</div></main>"


def _tiles(facts: Facts) -> Iterator[tuple[str, str]]:
    """The main numbers."""
    best, baseline = facts.best, facts.baseline
    if best:
        seeds = of_seeds(best.num_seeds)
        yield f"{best.mean_error_pct:.2f} %", f"best so far, trial {best.first.trial.number}{seeds}: validation error"
    if baseline:
        yield f"{baseline.mean_error_pct:.2f} %", f"documented {facts.spec.baseline}{of_seeds(baseline.num_seeds)}"
    if facts.findings.resolution:
        yield f"{facts.findings.resolution.points:.2f} points", "two trials differ by chance (95 %)"
    yield str(len(facts.ended)), "trials ended"
    yield duration(facts.usage.device_s), "reserved time used"
    if facts.verdict:
        yield str(facts.verdict.answer).capitalize(), "verdict"


def _tile(value: str, what: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.key}"><h2>{escape(section.title)}</h2>'
    yield f'<p class="explanation">{escape(section.explanation)}</p>'
    if section.figures:
        yield f'<div class="figures{" several" * (len(section.figures) > 1)}">'
        for number, figure in enumerate(section.figures):
            yield _figure(f"{section.key}-{number}", section.title, figure)
        yield "</div>"
    yield _list(section.lines)
    yield from map(_table, section.tables)
    yield "</section>"


def _figure(name: str, title: str, figure: go.Figure) -> str:
    height = figure.layout.height
    data = figure.to_json()  # writes each < as \u003c, so that no text ends the element
    return (
        f'<div class="figure" role="img" aria-label="{escape(title)}" data-figure="{name}" style="height:{height}px">'
        f'</div><script type="application/json" id="{name}">{data}</script>'
    )


def _list(lines: Sequence[str]) -> str:
    """An HTML list; text between backticks becomes code."""
    items = [re.sub("`([^`]*)`", r"<code>\1</code>", escape(line)) for line in lines]
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if items else ""


def _table(table: Table) -> str:
    if not table.head:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in table.rows)
        return f'<table class="pairs">{rows}</table>'
    head = "".join(f"<th>{escape(title)}</th>" for title in table.head)
    rows = "".join(
        f"<tr{' class=baseline' * (place in table.marked)}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for place, row in enumerate(table.rows)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _origin(facts: Facts, made_at: datetime) -> Iterator[str]:
    yield '<section id="provenance"><h2>Provenance</h2>'
    yield '<p class="explanation">Settings, code, versions and machine of these results.</p>'
    yield _table(provenance(facts))
    yield "</section>"
    command = f"<code>harness report {escape(facts.spec.study)}</code>"
    yield f"<footer><p>Made {made_at:%Y-%m-%d %H:%M} by {command}</p></footer>"


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
