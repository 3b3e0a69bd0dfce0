"""Steps at which tests kill this process. Without HARNESS_FAILPOINT they have no effect.

With `HARNESS_FAILPOINT=after_propose:2` a process kills itself with SIGKILL at its second arrival at that step.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from enum import StrEnum

from harness.errors import InputError

VARIABLE = "HARNESS_FAILPOINT"


class Step(StrEnum):
    """The steps at which a process can be killed, from the search to leaderboard and registry."""

    # A study's beginning and the start of each session
    BEFORE_STUDY = "before_study"
    AFTER_STUDY = "after_study"
    AFTER_SESSION = "after_session"
    AFTER_LOST_ATTEMPTS = "after_lost_attempts"
    # A trial in the loop
    BEFORE_PROPOSE = "before_propose"
    AFTER_PROPOSE = "after_propose"
    AFTER_START_ATTEMPT = "after_start_attempt"
    AFTER_HAND_OUT = "after_hand_out"
    BEFORE_EPOCH = "before_epoch"
    AFTER_EPOCH = "after_epoch"
    BEFORE_ANSWER = "before_answer"
    AFTER_ANSWER = "after_answer"
    BEFORE_RESULT = "before_result"
    AFTER_RESULT = "after_result"
    BEFORE_REUSE = "before_reuse"
    AFTER_REUSE = "after_reuse"
    AFTER_TELL = "after_tell"
    AFTER_SEARCH_TIME = "after_search_time"
    AFTER_NOTIFY = "after_notify"
    AFTER_FAILED_ATTEMPT = "after_failed_attempt"
    # In a worker, which is the process that dies
    BEFORE_CHECKPOINT = "before_checkpoint"
    # Logging of a run to MLflow
    BEFORE_EXPERIMENT = "before_experiment"
    AFTER_EXPERIMENT = "after_experiment"
    BEFORE_PARENT_RUN = "before_parent_run"
    BEFORE_CREATE_RUN = "before_create_run"
    AFTER_CREATE_RUN = "after_create_run"
    AFTER_LOG_BATCH = "after_log_batch"
    BEFORE_TERMINATED = "before_terminated"
    AFTER_TERMINATED = "after_terminated"
    AFTER_TRACKED = "after_tracked"
    # Registration of a champion
    BEFORE_MODEL = "before_model"
    AFTER_MODEL = "after_model"
    BEFORE_VERSION = "before_version"
    AFTER_VERSION = "after_version"
    AFTER_ALIAS = "after_alias"
    # Import of a study
    BEFORE_IMPORT = "before_import"
    BEFORE_IMPORT_ENDS = "before_import_ends"
    AFTER_IMPORT = "after_import"
    # Writing of a table or a study
    BEFORE_FILE = "before_file"
    AFTER_FILE = "after_file"


_SETTING = os.environ.get(VARIABLE)
_num_reached: Counter[str] = Counter()


def reach(step: Step) -> None:
    """Marks that the process has reached `step`.

    Raises:
        InputError: HARNESS_FAILPOINT is set, and does not name a step.
    """
    if _SETTING is not None:
        _count(step, _SETTING)


def _count(step: Step, setting: str) -> None:
    parts = re.fullmatch(r"(\w+)(?::([1-9]\d*))?", setting)
    if parts is None or parts[1] not in list(Step):
        raise InputError(f"{VARIABLE} is {setting!r}; allowed: one of {', '.join(Step)}, with :N for the N-th time")
    _num_reached[step] += 1
    if step == parts[1] and _num_reached[step] == int(parts[2] or 1):
        os.kill(os.getpid(), signal.SIGKILL)
