"""A study in one file, with its verdict: all rows that the ledger has of them, so that they go on in another home.

The file is gzipped text with one JSON object per line: the header, then each row as {TABLE: {COLUMN: CELL}}, then the
number of rows. The header states the ledger's version. An older harness refuses a newer file; a newer harness puts the
rows into a ledger of the file's version and migrates that. Rows keep their checksums, so that a change is detected.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.schema import SCHEMA_VERSION, STUDY_TABLES, Row, insert, run_scripts
from harness.support.redaction import reason
from harness.support.strict_json import parse_json, shown, shown_key

FORMAT, VERSION = "harness-study", 1
ENDING = ".study.gz"
NO_STUDY = "it is no file of `harness export STUDY --study`"
# Of the unpacked text, against files that unpack to any size; a study of 31 trials has 0.1 MB.
MAX_BYTES = 512 * 2**20
MAX_LINE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Header:
    """The first line of a file.

    Attributes:
        format: "harness-study".
        version: Of the format.
        schema: Version of the ledger that the rows are of.
        study: The study; its verdict goes with it.
    """

    format: str
    version: int
    schema: int
    study: str


def pack(ledger: Ledger, studies: list[str], path: Path) -> None:
    """Writes all rows of a study and its verdict, the study first. The same rows give the same bytes.

    Raises:
        DamageError: the ledger's rows cannot be read.
    """
    num_rows = 0
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(_line(asdict(Header(FORMAT, VERSION, SCHEMA_VERSION, studies[0]))))
        with ledger.snapshot():
            for table, row in ledger.rows(studies):
                file.write(_line({table: row}))
                num_rows += 1
        file.write(_line({"rows": num_rows}))


@contextmanager
def unpacked(packed: BinaryIO, named: str) -> Iterator[tuple[str, Ledger]]:
    """(study, a temporary ledger with all rows of the file); `named` is the file's name for messages.

    The rows have the types of their columns. Their contents and checksums are those of the file, and not checked.

    Raises:
        TroubleError: it is no exported study, is not as it was written, is too large, or is of a newer version.
    """
    with TemporaryDirectory(prefix="harness-") as folder:
        path = Path(folder) / "ledger.db"
        try:
            study = _unpack(packed, path)
            ledger = Ledger(path)
        except EOFError as error:
            raise TroubleError(f"{named}: it is cut off; export it again, or copy all of it") from error
        except gzip.BadGzipFile as error:
            is_other = str(error).startswith("Not a gzipped file")  # otherwise its checksum is wrong
            raise TroubleError(f"{named}: {NO_STUDY if is_other else f'it is damaged ({error})'}") from error
        except TroubleError as error:  # of the temporary ledger
            raise TroubleError(f"{named}: {str(error).replace(f'ledger {path}', 'its rows')}") from error
        except (zlib.error, OSError, ValueError, OverflowError, sqlite3.Error) as error:
            raise TroubleError(f"{named}: {reason(error)}") from error
        with closing(ledger):
            yield study, ledger


def _unpack(packed: BinaryIO, path: Path) -> str:
    """Puts the rows into a new ledger of the file's version; returns the study's name."""
    with gzip.open(packed) as text, closing(sqlite3.connect(path, isolation_level=None)) as db:
        lines = _lines(text)
        header = _header(next(lines, b""))
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        run_scripts(db, 0, header.schema)
        columns = {table: _columns(db, table) for table in STUDY_TABLES}
        num_rows, stated = 0, None
        for line in lines:
            if stated is not None:
                raise ValueError("it has more lines after its last one")
            if line.startswith(b'{"rows"'):
                stated = parse_json(dict[str, int], line)["rows"]
                continue
            num_rows += 1
            table, row = _row(line, columns)
            insert(db, table, row)
        if stated != num_rows:
            raise ValueError(f"it has {num_rows} rows and states {'no number' if stated is None else stated}")
        db.execute("COMMIT")
    return header.study


def _header(line: bytes) -> Header:
    try:
        known = parse_json(dict[str, Any], line)
    except ValueError:
        known = {}
    if known.get("format") != FORMAT:
        raise ValueError(NO_STUDY)
    for key, newest in (("version", VERSION), ("schema", SCHEMA_VERSION)):
        number = known.get(key)
        if isinstance(number, int) and number > newest:
            raise ValueError(f"its {key} is {shown(number)}, this harness knows up to {newest}; install a newer one")
        if type(number) is not int or number < 1:
            raise ValueError(f"its {key} is {shown(number)}; allowed: 1 to {newest}")
    return parse_json(Header, line)


def _row(line: bytes, columns: Mapping[str, set[str]]) -> tuple[str, Row]:
    """The table and the row of a line, which must have exactly these columns."""
    found = parse_json(dict[str, Row], line)
    if len(found) != 1 or not found.keys() <= columns.keys():
        tables = ", ".join(map(shown_key, found)) or "none"
        raise ValueError(f"a row's table is {shown(tables)}; allowed: one of {', '.join(columns)}")
    ((table, row),) = found.items()
    if row.keys() != columns[table]:
        wrong = ", ".join(map(shown_key, sorted(row.keys() ^ columns[table])))
        raise ValueError(f"a row of table {table} has missing or unknown columns: {wrong}")
    return table, row


def _lines(text: gzip.GzipFile) -> Iterator[bytes]:
    num_bytes = 0
    while line := text.readline(MAX_LINE_BYTES):
        num_bytes += len(line)
        if num_bytes > MAX_BYTES or len(line) == MAX_LINE_BYTES:
            limits = f"{MAX_BYTES / 2**20:.0f} MB, {MAX_LINE_BYTES / 2**20:.0f} in a line"
            raise ValueError(f"it is larger when unpacked than is allowed: {limits}")
        yield line


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
