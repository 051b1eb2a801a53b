"""The loop that a search is: it decides what is trained next and stores what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nas.budget import Refusal
from nas.candidates import Candidate, Contender, Entry
from nas.files import RunError
from nas.finals import finalists, missing, shipped, write_winner
from nas.interrupt import Interrupts
from nas.lab import Job, Lab
from nas.observer import Observer
from nas.plan import Plan
from nas.run import RunFolder
from nas.study import Ledger, Proposals, Training, opened, refusals
from nas.table import Row, rows, write_table
from nas.trainer import Trainer

PATIENCE = 20
"""Useless proposals in a row, after which the next untried candidate of the space is taken."""


@dataclass(frozen=True)
class Result:
    """The table of a run; `notes` say what the user must know besides."""

    run: Path
    rows: list[Row]
    interrupted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Row | None:
        return next((row for row in self.rows if row.rank == 1), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "trials": [row.to_dict() for row in self.rows],
            "best": self.best.to_dict() if self.best else None,
            "interrupted": self.interrupted,
            "notes": list(self.notes),
        }


def served(trainings: Iterable[Training]) -> dict[str, list[str]]:
    """operation -> the implementations that served it in these trainings."""
    found: dict[str, set[str]] = {}
    for row in trainings:
        for operation, names in row.facts.get("kernels", {}).items():
            found.setdefault(operation, set()).update(names)
    return {operation: sorted(found[operation]) for operation in sorted(found)}


def listed(kernels: Mapping[str, list[str]]) -> str:
    """In one line.

    >>> listed({"explicit": ["llvm"], "lean": ["convolution", "llvm"]})
    'explicit by llvm, lean by convolution and llvm'
    """
    return ", ".join(f"{name} by {' and '.join(ways)}" for name, ways in kernels.items())


class Driver:
    """One run, from whatever the ledger holds to its end."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        observer: Observer,
        trainer: Trainer,
        make: Callable[[], Executor],
    ) -> None:
        self._plan, self._run, self._observer = plan, run, observer
        self._trainer, self._make = trainer, make
        self._asked = plan.settings
        self._interrupts = Interrupts()
        self._notes: list[str] = []
        self._settled: dict[str, Entry | Refusal] = {}
        self._rest = plan.space.candidates()

    def run(self) -> Result:
        """Do what is missing. Raises RunError where the folder cannot be written."""
        path, asked = self._run.path, self._asked
        with self._interrupts.installed(), opened(path) as storage:
            self._ledger = Ledger(storage, path)
            genes = self._plan.space.genes
            self._proposals = Proposals(storage, path, genes, asked.sampler, asked.seed)
            self._proposals.recover(self._ledger.get)
            self._lab = Lab(
                self._plan,
                self._run,
                self._ledger,
                self._proposals,
                self._interrupts,
                self._observer,
                self._trainer,
                self._make,
            )
            ended = False
            try:
                self._recall_trained()
                self._known()
                self._explore()
                self._finals()
                self._tests()
                ended = True
            except KeyboardInterrupt:
                self._note(f"interrupted; go on with --resume {path}")
            finally:
                self._lab.close(abandon=not ended)
            self._proposals.recover(self._ledger.get)
            found = rows(self._ledger.rows, self._ledger.tests, refusals(storage, path))
            if ended:
                self._winners(found)
            write_table(path, found)
            if ended:
                kernels = served(self._ledger.rows)
                self._run.finish(kernels)
                if kernels:
                    self._note(f"kernels: {listed(kernels)}")
        if self._plan.how_timed:
            self._note(f"latency: {self._plan.how_timed}")
        return Result(path, found, not ended, tuple(self._notes))

    # ---- phases ------------------------------------------------------------------------------

    def _known(self) -> None:
        """Known blocks and rivals compete in a fixed order, before the search."""
        done = [row for row in self._ledger.rows if row.known_as and row.repeat == 0]
        labels = {(row.known_as, row.facts["candidate"]) for row in done}
        names = {row.key: row.known_as for row in done}
        pending = []
        for found in self._plan.known:
            name = found.candidate.known_as or "known"
            if (name, str(found.candidate)) in labels:
                continue
            entry = found if isinstance(found, Refusal) else self._plan.timed(found)
            if isinstance(entry, Refusal):
                self._refuse_known(name, entry.candidate, entry.reason)
            elif entry.key in names:
                reason = f"within the limits the same network as {names[entry.key]}"
                self._refuse_known(name, entry.candidate, reason)
            else:
                names[entry.key] = name
                pending.append(Job(entry, known_as=name))
        self._observer.phase("known", len(pending))
        for job in pending:
            self._lab.begin(job)
        self._lab.drain()

    def _explore(self) -> None:
        """Proposals until as many different networks are trained as were asked for."""
        wanted = self._asked.trials
        self._observer.phase("search", wanted - self._searched())
        exhausted = False
        while True:
            # A latency is not measured beside a training, so all slots are filled at once.
            timing = self._plan.limits.latency is not None and self._lab.flying
            while self._lab.free and not exhausted and not timing:
                if self._searched() + len(self._lab.flying) >= wanted:
                    break
                if (job := self._next()) is None:
                    exhausted = True
                else:
                    self._lab.begin(job)
            if not self._lab.flying:
                break
            self._lab.receive()
        if exhausted:
            self._note(
                f"the space is exhausted: within the limits it holds {self._searched()} different "
                f"networks besides the known blocks, fewer than the {wanted} trials asked for"
            )

    def _finals(self) -> None:
        """Further seeds for the leaders and the known blocks."""
        pending = missing(self._ledger, self._asked.finalists, self._asked.seeds)
        self._observer.phase("finals", len(pending))
        for first, repeat in pending:
            self._lab.begin(Job(self._plan.read(first.network), repeat, first.known_as))
        self._lab.drain()

    def _tests(self) -> None:
        """The test split, read when nothing can change the ranking any more."""
        if self._ledger.tests:
            return
        keys = self._finalists()
        pending = [r for r in self._ledger.rows if r.key in keys and r.accuracy is not None]
        self._observer.phase("test", len(pending))
        reached = self._lab.judge(pending)
        self._ledger.set_tests({key: fmean(values) for key, values in reached.items()})

    def _winners(self, found: list[Row]) -> None:
        keys = self._finalists()
        for row in found:
            if row.key in keys and row.state == "complete":
                training = shipped(self._ledger.rows, row.key)
                trained = self._plan.proxy(self._plan.read(training.network))
                write_winner(self._run, row, training, trained)

    # ---- what is next ------------------------------------------------------------------------

    def _next(self) -> Job | None:
        """A network to train: the sampler's, or the space's next, or None when all were tried."""
        for _ in range(PATIENCE):
            self._interrupts.check()
            proposal = self._proposals.ask()
            candidate = self._plan.space.decode(proposal.genes)
            entry = self._settle(candidate, proposal.settled)
            if isinstance(entry, Refusal):
                self._proposals.refuse(proposal.number, _design(candidate), entry.reason)
                continue
            latency = self._plan.latency(entry)
            self._proposals.settle(proposal.number, entry.key, entry.to_dict(), latency)
            if (row := self._ledger.get(entry.key)) is not None:
                self._proposals.tell(proposal.number, row, same=True)
            elif (job := self._lab.flying.get(entry.key)) is not None:
                job.numbers.append(proposal.number)
            else:
                return Job(entry, numbers=[proposal.number])
        for candidate in self._rest:
            self._interrupts.check()
            entry = self._settle(candidate)
            if isinstance(entry, Refusal) or entry.key in self._lab.flying:
                continue
            if self._ledger.get(entry.key) is None:
                return Job(entry)
        return None

    def _settle(
        self, candidate: Candidate, before: Mapping[str, Any] | None = None
    ) -> Entry | Refusal:
        """The network of a candidate, worked out (and timed) once a run."""
        name = str(candidate)
        if name not in self._settled:
            if before is None:
                self._settled[name] = self._plan.solve(candidate)
            else:
                self._settled[name] = self._recall(before["network"], before["latency"])
        return self._settled[name]

    def _recall(self, network: Mapping[str, Any], latency: float | None) -> Entry:
        entry = self._plan.read(network)
        self._plan.remember(entry, latency)
        return entry

    def _recall_trained(self) -> None:
        """What earlier processes of this run worked out and timed, is not done again."""
        for row in self._ledger.rows:
            if row.trained and row.repeat == 0:
                entry = self._recall(row.network, row.facts["latency"])
                if entry.key != row.key:
                    raise RunError(
                        f"{entry.title} is no longer what it was when {self._run.path} was begun; "
                        "start a new run"
                    )
                if row.known_as is None:
                    self._settled[str(entry.candidate)] = entry

    # ---- small things ------------------------------------------------------------------------

    def _searched(self) -> int:
        """Different networks trained so far, besides the known ones."""
        return sum(r.trained and r.repeat == 0 and not r.known_as for r in self._ledger.rows)

    def _finalists(self) -> set[str]:
        return {row.key for row in finalists(self._ledger.rows, self._asked.finalists)}

    def _refuse_known(self, name: str, candidate: Contender, reason: str) -> None:
        facts = {"candidate": str(candidate), **_design(candidate)}
        key = f"refused {name} {candidate}"
        self._ledger.add(Training(key, 0, {}, name, reason=reason, trained=False, facts=facts))
        self._note(f"{name} does not compete: {reason}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._observer.note(text)


def _design(candidate: Contender) -> dict[str, Any]:
    """What the table shows of a candidate without a network."""
    design = candidate.design if isinstance(candidate, Candidate) else candidate
    return {"design": str(design), "blocks": list(candidate.blocks)}
