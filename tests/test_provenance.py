"""What is written down of the code that ran: in a real git repository."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.support import own_code, provenance
from harness.support.provenance import diff_file, is_code_committed, session_provenance, uncommitted_diff

CODE = b"def answer():\n    return 41\n"
WINDOWS = b"one\r\ntwo\r\n"
LATIN = "caf\u00e9\n".encode("latin-1")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "check out"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name, content in {"code.py": CODE, "windows.txt": WINDOWS, "latin.txt": b"cafe\n"}.items():
        (folder / name).write_bytes(content)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_what_is_in_no_commit_can_be_applied_to_it(checkout: Path, tmp_path: Path) -> None:
    changed = {"code.py": CODE.replace(b"41", b"42"), "windows.txt": WINDOWS + b"three\r\n"}
    for name, content in changed.items():
        (checkout / name).write_bytes(content)
    git(checkout, "add", "code.py")  # staged or not, it is in no commit
    git(checkout, "config", "diff.noprefix", "true")  # how the user likes to see it
    git(checkout, "config", "color.diff", "always")
    diff = uncommitted_diff(checkout)
    git(checkout, "reset", "--hard", "--quiet")
    assert uncommitted_diff(checkout) == ""
    (tmp_path / "kept.diff").write_bytes(diff.encode())
    git(checkout, "apply", str(tmp_path / "kept.diff"))
    assert {name: (checkout / name).read_bytes() for name in changed} == changed


def test_untracked_files_are_never_looked_at(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("mine alone")
    assert uncommitted_diff(checkout) == ""
    (checkout / "code.py").write_bytes(CODE.replace(b"41", b"42"))
    assert "mine alone" not in uncommitted_diff(checkout)


def test_other_encodings_and_binary_files_are_no_trouble(checkout: Path) -> None:
    (checkout / "latin.txt").write_bytes(LATIN)
    (checkout / "code.py").write_bytes(bytes(range(256)))
    diff = uncommitted_diff(checkout)
    assert "+caf\ufffd\n" in diff
    assert "Binary files a/code.py and b/code.py differ" in diff


def test_a_long_diff_is_cut_and_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MAX_DIFF_BYTES", 200)
    (checkout / "code.py").write_bytes(b"x = 1\n" * 100_000)
    diff = uncommitted_diff(checkout)
    assert diff.startswith("diff --git a/code.py b/code.py\n")
    assert diff.endswith("\n[cut here: it is longer than 200 bytes]\n")
    assert len(diff) < 300


def test_passwords_in_code_are_kept_out_and_nothing_else(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    plain = [
        "@dataclass",
        "sorted(rows, key=lambda row: row.name)",
        "login(user, token=token)",
        "mail = 'someone@example.com'",
        "for key in keys: pass",
    ]
    secret = [
        "url = 'https://me:s3cret@host/x'",
        "password = 's3cret'",
        '{"api_key": "s3cret", "user_token" : "s3cret"}',
        "API_KEY=s3cret",
        "os.environ['X'] = 'hunter2'",
    ]
    (checkout / "code.py").write_text("\n".join([*plain, *secret]))
    diff = uncommitted_diff(checkout)
    assert [line for line in plain if f"+{line}\n" not in diff] == []
    assert "s3cret" not in diff
    assert "hunter2" not in diff
    assert "url = 'https://***@host/x'" in diff
    assert diff.count("\n@@ ") == 1


def test_a_folder_without_a_repository_has_no_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert uncommitted_diff(tmp_path) == ""


def test_looking_takes_no_lock_of_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks would otherwise write down what it has seen, while somebody else may want to commit."""
    monkeypatch.setattr(provenance, "project_root", lambda: checkout)
    index = checkout / ".git" / "index"
    before = index.read_bytes()
    os.utime(checkout / "code.py", (0, 0))  # as if it had been written again
    known = session_provenance()
    assert index.read_bytes() == before
    assert (known["git_dirty"], known.get("git_diff")) == (False, None)
    git(checkout, "status")
    assert index.read_bytes() != before


def test_a_session_knows_the_code_that_trains_and_the_settings_of_keras() -> None:
    known = session_provenance()
    assert not any(str(own_code.HARNESS.parent) in str(value) for value in known.values()), "studies are published"
    assert known["code_digest"] == own_code.digest()
    assert known["keras_settings"] == "float32, channels_last, epsilon 1e-07"


def test_a_session_knows_its_diff(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "project_root", lambda: checkout)
    assert (session_provenance()["git_dirty"], "git_diff" in session_provenance()) == (False, False)
    (checkout / "code.py").write_bytes(CODE.replace(b"41", b"42"))
    known = session_provenance()
    assert known["git_dirty"] is True
    assert known["git_commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert "+    return 42\n" in str(known["git_diff"])
    assert diff_file(str(known["git_diff"])) != diff_file("another")


def test_code_is_committed_only_if_git_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Results of equal code are taken over, so doubt counts as a change."""
    for name in ("harness", "baselines"):
        (checkout / name).mkdir()
        (checkout / name / "__init__.py").write_bytes(CODE)
    monkeypatch.setattr(own_code, "HARNESS", checkout / "harness")
    assert not is_code_committed(), "no file is tracked"
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "second")
    assert is_code_committed()
    (checkout / "notes.txt").write_text("beside the code")
    assert is_code_committed()
    (checkout / "baselines" / "mine.py").write_bytes(CODE)
    assert not is_code_committed()
    (checkout / ".gitignore").write_text("/ignored\n")
    copy = checkout / "ignored"
    for name in ("harness", "baselines"):
        (copy / name).mkdir(parents=True)
        (copy / name / "__init__.py").write_bytes(CODE)
    monkeypatch.setattr(own_code, "HARNESS", copy / "harness")
    assert not is_code_committed(), "the other repository knows nothing of it"
    (checkout / "baselines" / "mine.py").unlink()
    monkeypatch.setattr(own_code, "HARNESS", checkout / "harness")
    assert is_code_committed()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_code_committed(), "there is no git"
