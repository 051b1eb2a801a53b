"""When a search ends because every training fails."""

from __future__ import annotations

import re
from pathlib import Path

from nas.files import RunError

IN_A_ROW = 10
"""Trainings that fail in a row for the same reason before the search ends, ..."""


class Failures:
    """Counts them; reasons are the same if they differ in numbers only.

    slots: trainings that run side by side; so many at least must fail, since those begin before
    the first has ended. folder: of the run, to go on with.
    """

    def __init__(self, slots: int, folder: Path) -> None:
        self._most, self._folder = max(IN_A_ROW, slots), folder
        self._reason, self._count = "", 0

    def add(self, reason: str | None) -> None:
        """A training ended, with a failure or (None) without. Raises RunError at the last straw."""
        kind = "" if reason is None else re.sub(r"\d+", "0", reason)
        self._count = self._count + 1 if kind and kind == self._reason else int(bool(kind))
        self._reason = kind
        if self._count >= self._most:
            raise RunError(
                f"{self._count} trainings in a row failed for the same reason, so the search "
                f"ends: {reason}; all results are kept: mend the cause and go on with --resume "
                f"{self._folder}, which tries other designs, or start a new run, which tries "
                "these again"
            )
