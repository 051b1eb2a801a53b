"""What a person sees of a search: live progress on standard error, the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nas.limits import show_seconds
from nas.study import Training
from nas.table import Row

LEADING = 6
"""Rows of the standings shown while a search runs."""

PHASES = {
    "known": "known blocks",
    "search": "search",
    "finals": "further seeds",
    "test": "test split",
    "audit": "long training",
}
WIDE = 132
"""Columns where the output is no terminal."""


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for a table where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDE, highlight=False)


def short(number: float | None) -> str:
    """Three figures: 49,872 is 49.9k, 1,234,567 is 1.23M; a dash for None.

    >>> short(49872), short(1234567), short(950)
    ('49.9k', '1.23M', '950')
    """
    if number is None:
        return "-"
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:#.3g}".rstrip(".") + suffix
    return f"{number:.0f}"


def percent(row: Row) -> str:
    """`63.1 ± 0.8`: mean and standard deviation over the seeds, in percent."""
    if row.accuracy is None:
        return "-"
    spread = f" ± {100 * row.accuracy_std:.1f}" if row.accuracy_std is not None else ""
    return f"{100 * row.accuracy:.1f}{spread}"


def place(row: Row) -> str:
    """`4`, or `1-3` where the seeds cannot tell three networks apart; a dash without a rank."""
    if row.place is None:
        return str(row.rank or "-")
    first, last = row.place
    return str(first) if first == last else f"{first}-{last}"


def ranked_table(rows: Iterable[Row], title: str) -> Table:
    """The networks that were trained, best first, those in bold that share the first place; the
    finalists have the most seeds."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, side in (
        ("rank", "right"),
        ("design", "left"),
        ("known as", "left"),
        ("width", "right"),
        ("blocks", "left"),
        ("params", "right"),
        ("mults", "right"),
        ("validation %", "right"),
        ("seeds", "right"),
        ("test %", "right"),
    ):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    trained = [row for row in rows if row.state != "infeasible"]
    most = max((row.seeds for row in trained), default=0)
    timed = any(row.latency is not None for row in trained)
    if timed:
        table.add_column("latency", justify="right", no_wrap=True)
    several = any(row.front is not None for row in trained)
    if several:
        table.add_column("front", no_wrap=True)
    for row in trained:
        style = "" if row.seeds == most else "dim"
        if row.place is not None and row.place[0] == 1:
            style = "bold green"
        elif row.known_as:
            style = f"cyan {style}".strip()
        table.add_row(
            place(row),
            row.design,
            row.known_as or "",
            str(row.width or "-"),
            "-".join(map(str, row.blocks or ())),
            short(row.params),
            short(row.mults),
            percent(row) if row.state == "complete" else row.state,
            str(row.seeds),
            f"{100 * row.test_accuracy:.1f}" if row.test_accuracy is not None else "",
            *([show_seconds(row.latency) if row.latency is not None else "-"] if timed else []),
            *(["*" if row.front else ""] if several else []),
            style=style,
        )
    return table


def finalists(rows: Sequence[Row]) -> list[Row]:
    """The networks with the most seeds: the leaders and the known blocks."""
    most = max((row.seeds for row in rows), default=0)
    return [row for row in rows if row.seeds == most and row.state == "complete"]


def winner(best: Row) -> str:
    """What stands first, and how many share that place."""
    first, last = best.place or (1, 1)
    if last > first:
        return f"first of {last - first + 1} that cannot be told apart: {best.design}"
    return f"winner: {best.design}"


def summary(rows: Iterable[Row]) -> str:
    """How many networks ended how, in one line, and with several objectives the hypervolume."""
    rows = list(rows)
    states = [row.state for row in rows]
    named = ("complete", "stopped", "failed", "infeasible")
    parts = [f"{states.count(state)} {state}" for state in named if state in states]
    if (fronted := sum(row.front is True for row in rows)) > 0:
        volume = max(row.hypervolume or 0.0 for row in rows)
        parts.append(f"{fronted} on the front, hypervolume {volume:.3f}")
    return ", ".join(parts) or "nothing trained yet"


class Standings:
    """An observer without a terminal: one line a training, so that a log tells the story."""

    def __init__(self, to: Console) -> None:
        self.console = to
        self._name, self._done, self._total = "", 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def phase(self, name: str, total: int) -> None:
        self._name, self._done, self._total = PHASES.get(name, name), 0, total
        self.console.print(f"{self._name}: {total} ahead")

    def started(self, design: str, known_as: str | None) -> None: ...

    def finished(self, training: Training) -> None:
        self._done += 1
        reached = f"{100 * training.accuracy:.1f} %" if training.accuracy is not None else "failed"
        if training.stopped is not None:
            reached = f"stopped after {training.stopped} epochs"
        name = f"{training.facts['design']} at {short(training.facts['params'])} parameters"
        self.console.print(
            f"  {self._done}/{self._total} {name}, seed {training.repeat}: {reached}"
        )

    def note(self, text: str) -> None:
        self.console.print(text)


class LiveStandings(Standings):
    """An observer on a terminal: a bar for the phase and the leaders so far."""

    def __init__(self, to: Console) -> None:
        super().__init__(to)
        self._bar = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
            console=to,
        )
        self._task = self._bar.add_task("starting", total=None, now="")
        self._best: dict[str, Training] = {}
        self._live = Live(self._view(), console=to, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def phase(self, name: str, total: int) -> None:
        label = PHASES.get(name, name)
        self._bar.update(self._task, description=label, total=total, completed=0, now="")

    def started(self, design: str, known_as: str | None) -> None:
        self._bar.update(self._task, now=design)

    def finished(self, training: Training) -> None:
        self._bar.advance(self._task)
        if training.accuracy is not None and training.repeat == 0:
            self._best[training.key] = training
        self._live.update(self._view())

    def note(self, text: str) -> None:
        self._live.console.print(text)

    def _view(self) -> Group:
        standing = sorted(self._best.values(), key=lambda t: -(t.accuracy or 0.0))[:LEADING]
        lines = [
            Text(
                f"  {100 * (t.accuracy or 0):5.1f} %  {t.facts['design']}"
                + (f"  ({t.known_as})" if t.known_as else ""),
                style="cyan" if t.known_as else "",
            )
            for t in standing
        ]
        return Group(self._bar, *lines)


def observer() -> Standings:
    """Live where standard error is a terminal, plain lines elsewhere."""
    to = console(stderr=True)
    return LiveStandings(to) if to.is_terminal else Standings(to)
