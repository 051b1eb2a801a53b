"""Who watches a search."""

from __future__ import annotations

from typing import Protocol

from nas.study import Training


class Observer(Protocol):
    """Who watches a search; every method may do nothing."""

    def phase(self, name: str, total: int) -> None:
        """A phase begins, with this many trainings (or tests) ahead, fewer where it ends early."""

    def started(self, design: str, known_as: str | None) -> None:
        """A network is handed to the executor."""

    def finished(self, training: Training) -> None:
        """A training is stored."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """The observer that does nothing."""

    def phase(self, name: str, total: int) -> None: ...

    def started(self, design: str, known_as: str | None) -> None: ...

    def finished(self, training: Training) -> None: ...

    def note(self, text: str) -> None: ...
