"""What a search trains next: the sampler's proposals, then what is left of the space.

A network is settled once a run (its width solved, its latency measured), whatever candidates lead
to it and however often, and it is trained once: proposals of a network that is known by its key,
trained or on its way, are answered with that one training.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.budget import Refusal
from nas.candidates import Candidate, Contender, Entry
from nas.files import RunError
from nas.interrupt import Interrupts
from nas.lab import Job, Lab
from nas.plan import Plan
from nas.proposals import Proposals
from nas.study import Ledger, Training
from nas.team import Claim, Team

if TYPE_CHECKING:
    from nas.guide import Guide

PATIENCE = 20
"""Useless proposals in a row, after which the next untried candidate of the space is taken."""


class Settled:
    """The network of each candidate, or why there is none; what earlier processes of the run have
    worked out and timed is taken from the ledger."""

    def __init__(self, plan: Plan, ledger: Ledger, folder: Path) -> None:
        self._plan, self._ledger, self._folder = plan, ledger, folder
        self._found: dict[Candidate, Entry | Refusal] = {}
        self._timed: dict[str, Entry] = {}
        self._trained: dict[str, Training] = {}
        self._read = 0
        self._searched = 0
        if plan.times:
            self._recall_timed()

    @property
    def searched(self) -> int:
        """Different networks trained so far, besides the known ones."""
        self._refresh()
        return self._searched

    def trained(self, candidate: Candidate) -> bool:
        """Whether the network of this very candidate was trained in the search."""
        self._refresh()
        return str(candidate) in self._trained

    def __call__(self, candidate: Candidate) -> Entry | Refusal:
        """The network of a candidate, worked out (and timed) once a run."""
        if candidate not in self._found:
            self._found[candidate] = self._settle(candidate)
        return self._found[candidate]

    def _settle(self, candidate: Candidate) -> Entry | Refusal:
        self._refresh()
        name = str(candidate)
        if name in self._timed:
            return self._timed[name]
        if name in self._trained:
            return self._recall(self._trained[name])
        entry = self._plan.solve(candidate)
        if not isinstance(entry, Refusal):
            latency = self._plan.latency(entry)
            if latency is not None:
                self._ledger.set_timed(name, entry.to_dict(), latency)
        return entry

    def _refresh(self) -> None:
        """Take in what was trained since."""
        for row in self._ledger.rows[self._read :]:
            if row.trained and row.repeat == 0 and row.known_as is None:
                self._trained[row.facts["candidate"]] = row
                self._searched += 1
        self._read = len(self._ledger.rows)

    def _recall(self, row: Training) -> Entry:
        """The network of a row. Raises RunError where it is not what it was."""
        entry = self._plan.read(row.network)
        self._plan.remember(entry, row.facts["latency"])
        if entry.key != row.key:
            raise RunError(
                f"{entry.title} is no longer what it was when {self._folder} was begun; "
                "start a new run"
            )
        return entry

    def _recall_timed(self) -> None:
        """What earlier processes of this run have timed, is not timed again."""
        for name, (network, latency) in self._ledger.timed.items():
            entry = self._timed[name] = self._plan.read(network)
            self._plan.remember(entry, latency)
        for row in self._ledger.rows:
            if row.trained and row.repeat == 0:
                self._recall(row)


class Chooser:
    """Asks, settles and claims until there is something to train."""

    def __init__(
        self,
        plan: Plan,
        settled: Settled,
        ledger: Ledger,
        proposals: Proposals,
        guide: Guide | None,
        lab: Lab,
        team: Team,
        interrupts: Interrupts,
    ) -> None:
        """guide: what chooses for the sampler "model"; None where Optuna samples."""
        self._space, self._settled, self._ledger = plan.space, settled, ledger
        self._proposals, self._guide, self._lab = proposals, guide, lab
        self._team, self._interrupts, self._trials = team, interrupts, plan.settings.trials
        self._rest: Iterator[Candidate] = plan.space.candidates()

    def next(self) -> Job | Claim | None:
        """A network to train: the sampler's, or the space's next, or None when all were tried.

        Claim.FULL where other drivers train as many as are missing.
        """
        for _ in range(PATIENCE):
            self._interrupts.check()
            genes = None
            if self._guide is not None:
                busy = {key: job.entry for key, job in self._lab.flying.items()}
                if (genes := self._guide.choose(busy, self._proposals.count)) is None:
                    break
            proposal = self._proposals.ask(genes)
            candidate = self._space.decode(proposal.genes)
            if (found := self._claimed(proposal.number, candidate)) is not None:
                return found
        return self._next_untried()

    def _claimed(self, number: int, candidate: Candidate) -> Job | Claim | None:
        """The training that a proposal asks for; None where it needs none or is not ours."""
        entry = self._settled(candidate)
        if isinstance(entry, Refusal):
            self._proposals.refuse(number, design_facts(candidate), entry.reason)
        elif (row := self._ledger.get(entry.key)) is not None:
            self._proposals.tell(number, row, same=True)
        elif (job := self._lab.flying.get(entry.key)) is not None:
            job.numbers.append(number)
        elif (claim := self._team.claim(entry.key, 0, self._trials)) is Claim.OURS:
            return Job(entry, numbers=[number])
        else:
            self._proposals.drop(number)
            if claim is Claim.FULL:
                return claim
        return None

    def _next_untried(self) -> Job | Claim | None:
        """The next candidate in the order of the genes whose network nobody trains."""
        for candidate in self._rest:
            self._interrupts.check()
            if self._settled.trained(candidate):
                continue
            entry = self._settled(candidate)
            if isinstance(entry, Refusal) or entry.key in self._lab.flying:
                continue
            if self._ledger.get(entry.key) is None:
                claim = self._team.claim(entry.key, 0, self._trials)
                if claim is Claim.OURS:
                    return Job(entry)
                if claim is Claim.FULL:
                    self._rest = chain([candidate], self._rest)
                    return claim
        return None


def design_facts(candidate: Contender) -> dict[str, Any]:
    """What the table shows of a candidate without a network."""
    design = candidate.design if isinstance(candidate, Candidate) else candidate
    return {"design": str(design), "blocks": list(candidate.blocks)}
