"""The notebook in docs/: it runs from top to bottom, and what is stored in it is fit to be seen.

`python tests/test_notebook.py` runs it anew in a new home and stores what it shows.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "quickstart.ipynb"
MACHINE_PATH = re.compile(r"(?<![\w/.])(/(work|tmp|root|home|Users|usr|var|mnt|opt|private)/|[A-Za-z]:\\)")
MAX_BYTES = 150_000  # pictures included


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Runs all cells in `folder`, with a home and settings of its own."""
    resources = {"metadata": {"path": str(folder)}}
    with _environment(folder):
        client = NotebookClient(notebook, timeout=300, record_timing=False, coalesce_streams=True, resources=resources)
        return client.execute()


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("HARNESS_HOME", str(folder / "home"))
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR"):
            patch.setenv(name, str(folder / name.lower()))
        yield


def problems(notebook: NotebookNode) -> list[str]:
    """What nobody should see on a web page, or is not there to be seen."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [f"cell {i} was not run in order" for i, cell in enumerate(cells, 1) if cell.execution_count != i]
    outputs = [output for cell in cells for output in cell.outputs]
    found += [f"error: {output.ename}" for output in outputs if output.output_type == "error"]
    found += [f"warning: {output.text}" for output in outputs if output.get("name") == "stderr"]
    texts = [text for output in outputs for text in shown(output)]
    found += [f"machine path: {text}" for text in texts if MACHINE_PATH.search(text)]
    found += [f"control code: {text!r}" for text in texts if "\x1b" in text]
    return found


def shown(output: NotebookNode) -> Iterator[str]:
    """The texts of an output, pictures left out."""
    yield output.get("text", "")
    yield from (text for kind, text in output.get("data", {}).items() if not kind.startswith("image/"))


@pytest.fixture(scope="module")
def stored() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_what_is_stored_is_fit_to_be_seen(stored: NotebookNode) -> None:
    nbformat.validate(stored)
    assert problems(stored) == []
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    kinds = {kind for cell in stored.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds, "a plot and a table are there to be seen"
    text = "".join(text for cell in stored.cells for output in cell.get("outputs", []) for text in shown(output))
    assert re.search(r"baseline 0 +\d+\.\d\d %", text)
    assert re.search(r"^(BETTER|NOT DISTINGUISHABLE|WORSE): ", text, re.MULTILINE)


def test_it_uses_what_people_may_use(stored: NotebookNode) -> None:
    code = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")
    assert not re.findall(r"\b(?:from|import) harness\.\S+", code), "an internal module"


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (nbformat.v4.new_output("error", ename="KeyError", evalue="", traceback=[]), "error: KeyError"),
        (nbformat.v4.new_output("stream", name="stderr", text="careful"), "warning: careful"),
        (nbformat.v4.new_output("stream", text="wrote /home/me/x.csv"), "machine path: wrote /home/me/x.csv"),
        (
            nbformat.v4.new_output("execute_result", data={"text/plain": "PosixPath('/tmp/x')"}),
            "machine path: PosixPath('/tmp/x')",
        ),
        (nbformat.v4.new_output("stream", text="\x1b[1mbold"), "control code: '\\x1b[1mbold'"),
    ],
)
def test_what_is_not_fit_is_found(output: NotebookNode, problem: str) -> None:
    cell = nbformat.v4.new_code_cell(execution_count=1, outputs=[output])
    assert problems(nbformat.v4.new_notebook(cells=[cell])) == [problem]
    cell.execution_count, cell.outputs = None, []
    assert problems(nbformat.v4.new_notebook(cells=[cell])) == ["cell 1 was not run in order"]


def test_it_runs_from_top_to_bottom(
    stored: NotebookNode, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    done = execute(nbformat.from_dict(stored), tmp_path)
    assert problems(done) == []
    assert (tmp_path / "home" / "ledger.db").is_file()
    kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in stored.cells]
    assert [[output.output_type for output in cell.get("outputs", [])] for cell in done.cells] == kinds


def store_anew() -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = execute(nbformat.read(NOTEBOOK, as_version=4), Path(folder))
    nbformat.write(done, NOTEBOOK)
    sys.stdout.write("\n".join(problems(done)) or f"{os.path.relpath(NOTEBOOK)} is fit to be seen\n")


if __name__ == "__main__":
    store_anew()
