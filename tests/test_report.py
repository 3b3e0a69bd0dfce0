"""The report as a file: one page with every figure, nothing from elsewhere, nothing unescaped; and its command."""

import json
import math
import re
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filled_ledger import CPU, GPU, FilledLedger, filled_verdict, make_spec
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.report import search_figures, work_figures
from harness.analysis.report.drawing import MAX_POINTS, hover, shown
from harness.analysis.report.facts import Facts, gather
from harness.analysis.report.sections import material, sections
from harness.analysis.report.stills import draw_stills
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Record, Role, Trial, TrialResult
from harness.workflows.report import write_report

EVIL = "</script><script>alert('x')</script>"


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.places: list[str] = []  # of figures
        self.addresses: list[str] = []
        self.figures: dict[str, Any] = {}
        self.scripts: list[str] = []
        self.metas: dict[str, str] = {}
        self.text = ""
        self._into: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        self.ids += [known["id"]] if "id" in known else []
        self.places += [known["data-figure"]] if "data-figure" in known else []
        self.addresses += [known[name] for name in ("href", "src", "action", "data", "poster") if name in known]
        if tag == "meta":
            self.metas[known.get("http-equiv") or known.get("name") or ""] = known.get("content", "")
        self._into = (known.get("id") if known.get("type") == "application/json" else tag) if tag in _RAW else None

    def handle_endtag(self, tag: str) -> None:
        self._into = None

    def handle_data(self, data: str) -> None:
        if self._into == "script":
            self.scripts.append(data)
        elif self._into in (None, "title"):
            self.text += data
        elif self._into != "style":
            assert "<" not in data  # whatever stands in it, it cannot end the element
            self.figures[self._into] = json.loads(data)


_RAW = ("script", "style", "title")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with closing(Ledger(home / "ledger.db")) as opened:
        yield opened


def fill(study: FilledLedger, number: int = 12) -> FilledLedger:
    study.ledger.start_session(study.spec.study, {"git_commit": "abc"})
    study.add_baseline(2.0, seed=0)
    study.add_baseline(2.3, seed=1)
    for place in range(number):
        params = {"units_1": 64 + 61 * place, "units_2": 64 + (377 * place) % 900}
        study.add(3.5 - 0.15 * place, params=params, train_s=5.0 + place)
    study.add(4.0, Outcome.PRUNED, epochs_done=2)
    study.add(None, Outcome.CRASHED, error="died")
    study.ask()
    return study


def read(home: Path, name: str = "study") -> Page:
    return Page((home / "reports" / f"{name}.html").read_text(encoding="utf-8"))


def figure_keys(page: Page) -> set[str]:
    return {re.sub(r"-\d+$", "", name) for name in page.figures}


def parts_with_figures(ledger: Ledger) -> set[str]:
    """The keys of all parts of the report but those of text and tables alone."""
    return {one.key for one in sections(material(gather(ledger, "study")))} - {"space-check", "trials"}


def test_one_whole_page_with_every_figure(ledger: Ledger, home: Path) -> None:
    fill(FilledLedger(ledger, make_spec()))
    assert write_report(home, "study").path == home / "reports" / "study.html"
    assert [path.name for path in (home / "reports").iterdir()] == ["study.html"]
    page = read(home)
    parts = parts_with_figures(ledger)
    assert figure_keys(page) == parts
    assert len(parts) >= 10
    assert page.places == list(page.figures)  # each has its place, once
    assert len([name for name in page.figures if name.startswith("slices")]) == 2
    assert {"headline", "space-check", "trials", "provenance", *parts} <= set(page.ids)
    assert (
        "Best so far trial 13 at 1.85 % (95 %: 1.18 to 2.89), 0.30 points below the baseline's 2.15 %"
        " (mean of 2 seeds): within noise. It is the best of 12 trained in full, at 1.60x the baseline's device time"
    ) in page.text
    assert "harness verdict study" in page.text


def test_still_pictures_show_what_the_figures_of_the_page_show(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(FilledLedger(ledger, make_spec()))
    known = material(gather(ledger, "study"))
    drawn: dict[str, Axes] = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **how: drawn.setdefault(path.stem, self.axes[0]))
    draw_stills(known, tmp_path)
    figures = {
        "best_so_far": search_figures.best_so_far(known.facts, known.steps),
        "error_against_time": search_figures.error_against_time(known.facts),
        "learning_curves": work_figures.learning_curves(known.facts),
    }
    for name, figure in figures.items():
        lines = {line.get_label(): line for line in drawn[name].lines}
        for trace in (trace for trace in figure.data if trace.showlegend is not False):
            np.testing.assert_array_equal(lines[trace.name].get_xydata(), np.array([trace.x, trace.y], float).T)
    assert drawn["learning_curves"].get_yscale() == "log"
    assert known.importance is not None
    bars, names = drawn["importance"].patches, drawn["importance"].get_yticklabels()
    shares = {label.get_text(): bar.get_width() for label, bar in zip(names, bars, strict=True)}
    assert shares == {name: share.mean for name, share in known.importance.of_error.items()}


def test_nothing_is_loaded_from_elsewhere(ledger: Ledger, home: Path) -> None:
    fill(FilledLedger(ledger, make_spec()))
    write_report(home, "study")
    page = read(home)
    assert page.addresses
    assert [address for address in page.addresses if not address.startswith("#")] == []
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert page.metas["Content-Security-Policy"].startswith("default-src 'none';")
    assert "connect-src" not in page.metas["Content-Security-Policy"]
    assert page.metas["viewport"].startswith("width=device-width")
    plotly, own = page.scripts
    assert len(plotly) > 1_000_000
    assert "prefers-color-scheme: dark" in own


def test_every_colour_of_a_figure_is_one_of_the_style_sheet(ledger: Ledger, home: Path) -> None:
    fill(FilledLedger(ledger, make_spec()))
    write_report(home, "study")
    text = (home / "reports" / "study.html").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    used = set(re.findall(r"var\((--\w+)\)", json.dumps(Page(text).figures)))
    assert len(used) > 6
    assert used <= set(re.findall(r"(--\w+):", light)) & set(re.findall(r"(--\w+):", dark))


def test_text_from_elsewhere_is_escaped(ledger: Ledger, home: Path) -> None:
    fill(FilledLedger(ledger, make_spec(), platform=EVIL))
    write_report(home, "study")
    page = read(home)
    assert len(page.scripts) == 2
    assert page.text.count(EVIL) == 1
    record = Record(Trial("a", 0, {"schedule": "<img src=x>"}, 0, 1), TrialResult(Outcome.COMPLETED))
    assert "<img" not in hover(record)


def test_an_unfinished_page_leaves_the_old_one(ledger: Ledger, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(FilledLedger(ledger, make_spec()))
    path = write_report(home, "study").path
    old = path.read_text(encoding="utf-8")

    def fails(self: Path, *arguments: object, **options: object) -> None:
        with self.open("w") as file:
            file.write("half")
        raise OSError("no room")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(TroubleError, match="no room"):
        write_report(home, "study")
    assert path.read_text(encoding="utf-8") == old
    assert list(path.parent.iterdir()) == [path]


def keys_and_lines(facts: Facts) -> dict[str, tuple[int, str]]:
    return {one.key: (len(one.figures), " ".join(one.lines)) for one in sections(material(facts))}


def test_a_study_that_has_just_begun(ledger: Ledger, home: Path) -> None:
    study = FilledLedger(ledger, make_spec())
    for goes_on in (
        lambda: None,
        lambda: study.ask(),
        lambda: study.add_baseline(2.0),
        lambda: study.add(2.5, Outcome.PRUNED, epochs_done=1),
    ):
        goes_on()
        found = keys_and_lines(gather(ledger, "study"))
        assert found["progress"] == (0, "No searched trial has been trained in full yet, so there is nothing to show.")
        write_report(home, "study")
    assert figure_keys(read(home)) >= {"curves", "workers", "time"}
    assert "so there is no best one" in read(home).text


def test_few_trials_have_no_importances(ledger: Ledger) -> None:
    study = fill(FilledLedger(ledger, make_spec()), number=4)
    found = keys_and_lines(gather(ledger, study.spec.study))
    assert found["importance"] == (
        0,
        "4 searched configurations were trained in full; at least 10 that differ are needed.",
    )
    assert found["contours"][0] == 0
    assert found["finding"][0] == 1


def test_a_baseline_alone_has_no_parts_about_a_search(ledger: Ledger, home: Path) -> None:
    study = FilledLedger(ledger, make_spec(space={}, reads_test=True))
    for seed in range(2):
        study.add(2.0, params={}, role=Role.BASELINE, seed=seed, test_wrong=range(180))
    write_report(home, "study")
    page = read(home)
    assert figure_keys(page) >= {"curves", "workers", "time"}
    assert not figure_keys(page) & {"progress", "cost", "importance", "parallel", "slices", "contours", "finding"}
    assert "is 2.00 %, its test error 1.80 % (mean of 2 seeds)" in page.text
    assert "verdict" not in page.text


def test_two_objectives_and_settings_that_are_not_always_there(ledger: Ledger, home: Path) -> None:
    space = {
        "units_1": {"low": 64, "high": 1024, "log": True},
        "schedule": {"values": ["constant", "warmup_cosine"]},
        "warmup_share": {"low": 0.05, "high": 0.2, "when": {"schedule": ["warmup_cosine"]}},
    }
    study = FilledLedger(ledger, make_spec(space=space, objective=("error", "device_time")))
    for place in range(14):
        params = {"units_1": 64 + place, "schedule": "constant"}
        if place % 2:
            params |= {"schedule": "warmup_cosine", "warmup_share": 0.05 + place / 100}
        study.add(2.0 + place / 10 * (1 + place % 2), params=params, train_s=10.0 + place)
    write_report(home, "study")
    page = read(home)
    assert figure_keys(page) == parts_with_figures(ledger) - {
        "contours"
    }  # one range of numbers is all that each trial has
    (bars,) = (page.figures[name] for name in page.figures if name.startswith("importance"))
    assert [trace["name"] for trace in bars["data"]] == ["error", "device time"]
    assert "Left out, since not every trial has it or it never varied: warmup_share." in page.text
    axes = [page.figures[name]["layout"]["xaxis"] for name in page.figures if name.startswith("slices")]
    assert [axis.get("type") for axis in axes] == ["log", "category", None]
    assert axes[0]["range"][0] < math.log10(64) < math.log10(1024) < axes[0]["range"][1]  # all of it, searched or not
    assert axes[2]["tickvals"][0] == 0.05
    parallel = page.figures["parallel-0"]
    assert {trace["name"]: trace["x"].count(None) for trace in parallel["data"]} == {
        "other trials": 11,
        "best quarter": 2,
        "best trial": 1,
    }
    texts = [note["text"] for note in parallel["layout"]["annotations"]]
    assert [text for text in texts if text.startswith("<b>")] == [
        f"<b>{name}</b>" for name in ("units<br>1", "schedule", "warmup<br>share", "error %")
    ]
    assert texts.count("unset") == 1


def test_mixed_fidelities_and_continued_trials(ledger: Ledger, home: Path) -> None:
    study = FilledLedger(ledger, make_spec(engine="keras-tuner", sampler="hyperband", pruner="none"))
    short = [study.add(4.0 + place, epochs=1, train_s=2.0) for place in range(4)]
    study.end(study.ask(epochs=3, continues=short[0]), 2.0, train_s=4.0)
    write_report(home, "study")
    page = read(home)
    assert "is the best of 1 trained in full" in page.text
    assert "The time of a trial that continues another one includes that one's." in page.text
    star = page.figures["cost-0"]["data"][-1]
    assert (star["name"], star["x"]) == ("best trial", [6.0])
    (best,) = (trace for trace in page.figures["curves-0"]["data"] if trace["name"] == "best trial")
    assert best["x"] == [1, 1, 2, 3, None]


def test_times_are_compared_within_one_timing_class(ledger: Ledger, home: Path) -> None:
    study = FilledLedger(ledger, make_spec())
    study.add_baseline(2.0, device=CPU)
    study.add(1.9, device=CPU)
    study.add(1.5, device=GPU)
    write_report(home, "study")
    page = read(home)
    assert "1 of others are left out" in page.text
    names = {trace["name"] for trace in page.figures["cost-0"]["data"]}
    assert "best trial" not in names  # it is of the other class
    assert "x its" not in page.text


def test_a_verdict_is_told(ledger: Ledger, home: Path) -> None:
    fill(FilledLedger(ledger, make_spec(dataset="digits")))
    filled_verdict(ledger, 7, ledger.history("study")[7].trial.params)
    write_report(home, "study")
    text = read(home).text
    assert "NO VERDICT YET" in text
    assert "models have read the 300 test images" in text


def test_many_trials_are_thinned_to_the_best_and_some_others() -> None:
    records = [
        Record(
            Trial(str(n), n, {}, 0, 1), TrialResult(Outcome.COMPLETED, final_error_rate_pct=n / 100, final_val_images=9)
        )
        for n in range(5000)
    ]
    found = [record.trial.number for record in shown(records)]
    assert len(found) == MAX_POINTS
    assert found[: MAX_POINTS // 2] == list(range(MAX_POINTS // 2))
    assert found[-1] == 4999
    assert shown(records[:10]) == records[:10]
