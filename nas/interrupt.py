"""Ctrl-C and SIGTERM as a wish to end, heard only where a run waits for its trainings."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While in use, both signals raise KeyboardInterrupt inside `heard`, and wait for it elsewhere.

    So no transaction is cut in two. Outside the main thread, signals are left alone.
    """

    def __init__(self) -> None:
        self._hearing = self._pending = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Where an interruption may come. Raises KeyboardInterrupt."""
        self._hearing = True
        try:
            self.check()
            yield
        finally:
            self._hearing = False

    def check(self) -> None:
        """A place where an interruption may come. Raises KeyboardInterrupt."""
        if self._pending:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        if self._hearing:
            raise KeyboardInterrupt
