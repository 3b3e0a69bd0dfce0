"""`harness report`: a study as one HTML file, and its main figures on the study's parent run in MLflow."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path

from harness.analysis.files import replaced
from harness.analysis.report.facts import gather
from harness.analysis.report.page import page
from harness.analysis.report.sections import material, sections
from harness.ledger import Ledger


def write_report(home: Path, study: str, out: Path | None = None) -> Path:
    """Writes the report on a study, as a whole file, and returns where it is: `reports/STUDY.html` of `home`, or `out`.

    Raises:
        InputError: there is no such study, or it is a verdict.
        TroubleError: the file cannot be written, or the ledger cannot be read.
    """
    with closing(Ledger(home / "ledger.db")) as ledger:
        facts = gather(ledger, study)
    path = out or home / "reports" / f"{study}.html"
    text = page(facts, sections(material(facts)), datetime.now())
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
