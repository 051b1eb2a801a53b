"""What the model is told of a run, so that it can choose the next network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from statistics import median

from nas.budget import Refusal
from nas.candidates import Candidate, Entry, Sized
from nas.model import PARENTS, Known, Model, Option
from nas.objectives import ACCURACY, LATENCY, costs_of, front
from nas.plan import Plan
from nas.prior import Prior, bundled
from nas.proposals import Told
from nas.space import Choice
from nas.stops import Stops, costs_in
from nas.study import Ledger, Training
from nas.timed_width import usual_seconds

MOST = 300
"""Trained networks that the model sees: the latest, and a third of them the best before."""


class Guide:
    """Reads the ledger for the model.

    A latency is known of trained networks only. That of another is taken as proportional to its
    multiplications, by the median of the trained ones.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        stops: Stops,
        settle: Callable[[Candidate], Entry | Refusal],
        told: Callable[[], Sequence[Told]],
        ordinal: int = 0,
        prior: Prior | None = None,
    ) -> None:
        """settle: the network of a candidate. told: what proposals came to. ordinal: of this driver
        among those of the study. prior: unless that of SparseKernelBench."""
        self._told = told
        self._plan, self._ledger, self._stops = plan, ledger, stops
        self._names = [name for name in plan.settings.objectives if name != ACCURACY]
        self._rows: list[Training] = []
        self._entries: dict[str, Sized] = {}
        self._done: set[str] = set()
        self._offered: set[str] = set()
        self._read = 0
        seed = f"{plan.settings.seed} {ordinal}"
        self._model = Model(plan.space, settle, self._costs, seed, prior or bundled())
        if ledger.rows:
            self._option({}, len(told()))  # settles most of what is asked for first

    def choose(self, busy: Mapping[str, Entry], number: int) -> Mapping[str, Choice] | None:
        """Genes of a network that is neither trained nor busy nor was offered before by this
        process; None where none is found. number: of the choice."""
        option = self._option(busy, number)
        if option is None:
            return None
        self._offered.add(option.key)
        return option.genes

    def _option(self, busy: Mapping[str, Entry], number: int) -> Option | None:
        self._refresh()
        rows = recent(self._rows)
        entries = [self._entries[row.key] for row in rows]
        factor = self._factor(rows, entries)
        known = [
            Known(row.key, entry, reached, self._costs_of(row, factor))
            for row, entry in zip(rows, entries, strict=True)
            if (reached := self._stops.foreseen(row)) is not None
        ]
        limits = vars(self._plan.limits)
        references = [
            limit / factor if name == LATENCY and limit else limit
            for name, limit in ((name, limits[name]) for name in self._names)
        ]
        under_way = {key: entry for key, entry in busy.items() if isinstance(entry, Sized)}
        closed = {*busy, *self._done, *self._offered}
        parents = self._parents(number)
        return self._model.choose(known, under_way, closed, parents, references, number)

    def _parents(self, number: int) -> list[Mapping[str, Choice]]:
        """Genes of the two best of the latest proposals; with several objectives of two of those
        that none dominates, in turn."""
        told = [one for one in self._told()[-MOST:] if one.value is not None]
        if not self._names:
            best = sorted(told, key=lambda one: -(one.value or 0.0))
            return [one.genes for one in best[:PARENTS]]
        kept = front([(-(one.value or 0.0), *one.costs) for one in told])
        best = [one for one, leads in zip(told, kept, strict=True) if leads]
        turns = range(PARENTS * number, PARENTS * number + min(PARENTS, len(best)))
        return [best[turn % len(best)].genes for turn in turns]

    def _refresh(self) -> None:
        for row in self._ledger.rows[self._read :]:
            if row.trained and row.repeat == 0:
                self._done.add(row.key)
                if "rival" not in row.network and (row.accuracy is not None or row.stopped):
                    self._rows.append(row)
                    self._entries[row.key] = Sized.from_dict(dict(row.network))
        self._read = len(self._ledger.rows)

    def _costs(self, entry: Sized) -> tuple[float, ...]:
        found = costs_in(entry, usual_seconds(entry))
        return tuple(found[name] for name in self._names)

    def _costs_of(self, row: Training, factor: float) -> tuple[float, ...]:
        found = costs_of(row.facts, self._names)
        return tuple(v / factor if name == LATENCY else v for name, v in found.items())

    def _factor(self, rows: Sequence[Training], entries: Sequence[Entry]) -> float:
        """Measured latency over the usual one."""
        if LATENCY not in self._names or not rows:
            return 1.0
        pairs = zip(rows, entries, strict=True)
        return median(row.facts["latency"] / usual_seconds(entry) for row, entry in pairs)


def recent(rows: Sequence[Training], most: int = MOST) -> list[Training]:
    """The latest, and of those before a third of `most`, the best, all in their order."""
    if len(rows) <= most:
        return list(rows)
    late = len(rows) - (most - most // 3)
    best = nsmallest(most // 3, range(late), key=lambda i: (-(rows[i].accuracy or 0.0), i))
    return [rows[index] for index in sorted(best)] + list(rows[late:])
