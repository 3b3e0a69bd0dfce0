"""How a sweep is asked to stop: by SIGINT or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Counts SIGINT and SIGTERM while it is entered; the handlers of before come back afterwards.

    The first one is only counted, so that running trials can stop at their epoch's end. The second raises
    KeyboardInterrupt, and a third one meets the handlers of before.
    """

    def __init__(self) -> None:
        self._num = 0  # all that the handler changes: it may come between any two steps
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Interrupts:
        # Python lets only its main thread set handlers; in another one nobody can be asked to stop.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()
        if self._num > 1 and isinstance(error, Exception):
            raise KeyboardInterrupt from None  # a library that was being loaded has made the interrupt its own error

    @property
    def has_come(self) -> bool:
        """Whether the process has been asked to stop."""
        return self._num > 0

    def _count(self, number: int, frame: FrameType | None) -> None:
        self._num += 1
        if self._num > 1:
            self._restore()
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
