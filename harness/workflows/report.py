"""`harness report`: a study as one HTML file, and its main figures on the study's parent run in MLflow."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.analysis.files import replaced
from harness.analysis.report.facts import gather
from harness.analysis.report.page import page
from harness.analysis.report.sections import Material, material, sections
from harness.analysis.report.stills import draw_stills
from harness.analysis.report.summary import summary
from harness.ledger.ledger import Ledger
from harness.tracking.reports import show_report


@dataclass(frozen=True)
class Report:
    """A report that has been written.

    Attributes:
        path: Its file.
        made_at: Time of writing, local time.
        material: The data that it was made from.
    """

    path: Path
    made_at: datetime
    material: Material


def write_report(home: Path, study: str, out: Path | None = None) -> Report:
    """Writes the report on a study atomically to `reports/STUDY.html` of `home`, or to `out`.

    Raises:
        InputError: there is no such study, or it is a verdict.
        TroubleError: the file cannot be written, or the ledger cannot be read.
    """
    with closing(Ledger(home / "ledger.db", makes=False)) as ledger:
        known = material(gather(ledger, study))
    report = Report(out or home / "reports" / f"{study}.html", datetime.now(), known)
    text = page(known.facts, sections(known), report.made_at)
    with replaced(report.path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return report


def bring_to_mlflow(home: Path, report: Report) -> None:
    """Logs a summary to the note of the study's parent run, and the main figures as PNG files to its artifacts.

    Raises:
        InputError: MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: MLflow is unavailable, or a sweep is logging this study's runs.
    """
    with TemporaryDirectory(prefix="harness-report-") as folder:
        stills = draw_stills(report.material, Path(folder))
        show_report(home, report.material.facts.spec.study, summary(report.material, report.made_at), stills)
