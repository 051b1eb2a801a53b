"""Early stopping in a run: the rungs and floors of each training, from what the ledger holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas.candidates import Entry
from nas.objectives import costs_of
from nas.run import Settings
from nas.stopping import (
    ETA,
    FEWEST,
    NEVER,
    Curve,
    Line,
    bar,
    dominated_floors,
    foreseen,
    halving_floors,
    line,
    rungs,
)
from nas.study import Ledger, Training

Rung = list[Any]
"""[epoch, floor or None]: plain data for a task."""


class Stops:
    """Which trainings are judged before their end, and below what they are stopped."""

    def __init__(self, settings: Settings, epochs: int, ledger: Ledger) -> None:
        self._objectives, self._ledger, self._epochs = settings.objectives, ledger, epochs
        self.judged = rungs(epochs) if settings.early_stopping else (epochs,)
        self.short = settings.early_stopping and epochs < FEWEST
        if self.short:
            self.judged = (epochs,)
        self._curves: list[Curve] = []
        self._finished: list[tuple[float, list[float]]] = []
        self._lines: dict[int, Line | None] = {}
        self._read = 0
        self._refresh()

    def rungs(self, costs: dict[str, float], *, stops: bool) -> list[Rung]:
        """For a first training. stops: whether it may be stopped at all, or is only judged."""
        floors = self._floors(costs) if stops else {}
        kept = {epoch: floor for epoch, floor in floors.items() if floor > NEVER}
        return [[epoch, kept.get(epoch)] for epoch in self.judged[:-1]]

    def reason(self, given: Sequence[Rung], stopped: int, accuracy: float) -> str:
        """Why a training ended at a rung."""
        floor = dict(map(tuple, given))[stopped]
        why = (
            f"what the best 1/{ETA} have there"
            if len(self._objectives) == 1
            else "which even an optimist needs there to beat a network that costs no more"
        )
        return (
            f"stopped after {stopped} of {self._epochs} epochs: {100 * accuracy:.1f} % is below "
            f"{100 * floor:.1f} %, {why}"
        )

    def foreseen(self, row: Training) -> float | None:
        """The accuracy of a training, or what one that was stopped would have reached."""
        if row.stopped is None:
            return row.accuracy
        self._refresh()
        curve = curve_of(row, self._epochs)
        rung = max(curve)
        if rung not in self._lines:
            self._lines[rung] = line(self._curves, rung, self._epochs)
        return foreseen(curve, self._lines[rung])

    def _floors(self, costs: dict[str, float]) -> dict[int, float]:
        self._refresh()
        if len(self._objectives) == 1:
            return halving_floors(self._curves, self.judged)
        to_beat = bar(list(costs.values()), self._finished)
        return dominated_floors(self._curves, to_beat, self.judged)

    def _refresh(self) -> None:
        """Take in what was trained since."""
        if self._read < len(self._ledger.rows):
            self._lines.clear()
        for row in self._ledger.rows[self._read :]:
            if row.repeat == 0 and row.trained and (curve := curve_of(row, self._epochs)):
                self._curves.append(curve)
                if row.accuracy is not None:
                    costs = costs_of(row.facts, self._objectives)
                    self._finished.append((row.accuracy, list(costs.values())))
        self._read = len(self._ledger.rows)


def costs_in(entry: Entry, latency: float | None) -> dict[str, float]:
    """All costs of a network by the names of the objectives."""
    cost = entry.cost
    known = {"params": cost.params, "mults": cost.mults, "traffic": cost.traffic_bytes}
    return {**known, **({} if latency is None else {"latency": latency})}


def curve_of(row: Training, epochs: int) -> Curve:
    """The judged accuracies of a training by epoch; empty where there are none."""
    points = row.facts.get("curve", ())
    judged = row.facts.get("judged") or [epochs]
    at = judged[: len(points)] if row.stopped else judged[-len(points) :]
    return dict(zip(at, points, strict=False)) if row.reason is None or row.stopped else {}
