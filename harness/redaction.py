"""Messages without passwords: what other people's errors and addresses are passed through before they are shown."""

from __future__ import annotations

import contextlib
import os
import re
from urllib.parse import unquote, urlsplit

# Of tracking servers and of stores of artifacts; their values are kept out of every message.
_SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
MAX_REASON = 300  # characters


def reason(error: BaseException) -> str:
    """What went wrong, as one line without credentials."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__)[:MAX_REASON]


def redact(text: str) -> str:
    """`text` without the user names and passwords of URIs, and without the user's own wherever they stand."""
    secrets = {os.environ.get(name) for name in _SECRETS}
    with contextlib.suppress(ValueError):
        password = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password
        secrets |= {password, unquote(password or "")}
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = re.sub(r"(\w+://)?\S*@", r"\1***@", text)
    return re.sub(r"(?i)(password|passwd|pwd|token|secret|key)=[^&\s'\"]+", r"\1=***", text)
