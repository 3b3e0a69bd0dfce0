"""Removes passwords from errors of libraries and addresses before they are shown."""

from __future__ import annotations

import contextlib
import os
import re
from urllib.parse import unquote, urlsplit

# Variables of tracking servers, artifact stores and databases; their values are removed from every message.
_SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PGPASSWORD",
)
MAX_REASON = 300  # characters
_SAYS_WHEN = "(raised as a result of "  # SQLAlchemy's prefix of an error

# In code: password = "...", "token": "..."; in files of settings: API_KEY=...
_NAMES = r"password|passwd|pwd|token|secret|(?:api|access|private)_?key"
_LITERAL = re.compile(rf"""(?i)((?:{_NAMES})\w*["']?\s*[:=]\s*["'])[^"'\n]+""")
_SETTING = re.compile(r"\b([A-Z0-9_]*(?:PASSWORD|PASSWD|PWD|TOKEN|SECRET|KEY)[A-Z0-9_]*=)[^\s\"']+")


def reason(error: BaseException) -> str:
    """An error's message, as one line without credentials."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(_SAYS_WHEN)]
    return redact(lines[0] if lines else type(error).__name__)[:MAX_REASON]


def redact(text: str) -> str:
    """`text` without user names and passwords of URIs, and without values of the variables above."""
    text = re.sub(r"([\w+]+://)?\S*@", r"\1***@", _without_own_secrets(text))
    return re.sub(r"(?i)(password|passwd|pwd|token|secret|key)=[^&\s'\"]+", r"\1=***", text)


def redact_code(text: str) -> str:
    """Source code without passwords: those in URIs, those in the variables above, and assigned ones.

    Unlike `redact` it does not change other text, so that a diff can still be applied.
    """
    text = re.sub(r"(\w+://)[^\s/@'\"]+@", r"\1***@", _without_own_secrets(text))
    return _SETTING.sub(r"\1***", _LITERAL.sub(r"\1***", text))


def _without_own_secrets(text: str) -> str:
    secrets = {os.environ.get(name) for name in _SECRETS}
    with contextlib.suppress(ValueError):
        password = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password
        secrets |= {password, unquote(password or "")}
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
