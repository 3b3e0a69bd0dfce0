"""Stopping a sweep by SIGINT or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Counts SIGINT and SIGTERM within the context and restores the previous handlers afterwards.

    The first signal is only counted, so that running trials can stop at the end of their epoch. The second one raises
    KeyboardInterrupt. A third one reaches the previous handlers.
    """

    def __init__(self) -> None:
        self._num = 0  # the handler changes nothing else, since it may run between any two steps
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Interrupts:
        # Python sets handlers in the main thread only; in other threads signals are not counted.
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
            raise KeyboardInterrupt from None  # a library that was loading has replaced the interrupt by its own error

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
