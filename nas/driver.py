"""The loop that a search is, phase by phase, from whatever the ledger holds to the winners."""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING

from nas import audit
from nas.budget import Refusal
from nas.candidates import Contender
from nas.choosing import Chooser, Settled, design_facts
from nas.executors import Engine
from nas.finals import finalists, missing, shipped, write_winner
from nas.interrupt import Interrupts
from nas.lab import Job, Lab
from nas.observer import Observer
from nas.plan import Plan
from nas.proposals import Proposals
from nas.result import Result, listed, served
from nas.run import RunFolder
from nas.stopping import FEWEST
from nas.stops import Stops
from nas.study import Ledger, Store, Training, refusals, study_of
from nas.table import Row, rows, write_table
from nas.team import Alone, Claim, Shared, Team
from nas.trainer import Trainer

if TYPE_CHECKING:
    from nas.guide import Guide

GLANCE = 0.3
"""Seconds between two looks at what other drivers have done, and at workers that joined."""


class Driver:
    """One run, from whatever the ledger holds to its end."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        observer: Observer,
        trainer: Trainer,
        engine: Engine,
    ) -> None:
        self._plan, self._run, self._observer = plan, run, observer
        self._trainer, self._engine = trainer, engine
        self._asked = plan.settings
        self._interrupts = Interrupts()
        self._notes: list[str] = []

    def run(self) -> Result:
        """Do what is missing. Raises RunError where the folder cannot be written."""
        path, asked = self._run.path, self._asked
        with self._interrupts.installed(), study_of(path, asked) as store:
            self._ledger = Ledger(store)
            self._team = self._join(store)
            self._proposals = Proposals(
                store,
                self._plan.space.genes,
                asked.sampler,
                asked.seed,
                self._team.driver,
                self._team.ordinal,
            )
            stops = Stops(asked, self._run.record.schedule["epochs"], self._ledger)
            self._lab = Lab(
                self._plan,
                self._run,
                self._ledger,
                self._proposals,
                self._interrupts,
                self._observer,
                self._trainer,
                self._engine,
                self._team,
                stops,
            )
            ended = False
            try:
                self._settled = Settled(self._plan, self._ledger, path)
                self._chooser = self._choosing(stops)
                self._known()
                self._explore()
                self._finals()
                self._tests()
                ended = True
            except KeyboardInterrupt:
                self._note(f"interrupted; go on with --resume {path}")
            finally:
                self._lab.close(abandon=not ended)
                self._team.leave()
            found = rows(self._ledger.rows, self._ledger.tests, refusals(store), asked)
            if ended:
                self._winners(found)
            write_table(path, found)
            if ended:
                audit.write(path, audit.brief(found, self._ledger.rows, asked.seed))
                kernels = served(self._ledger.rows)
                self._run.finish(kernels)
                if kernels:
                    self._note(f"kernels: {listed(kernels)}")
        if self._plan.how_timed:
            self._note(f"latency: {self._plan.how_timed}")
        return Result(path, found, not ended, tuple(self._notes))

    def _choosing(self, stops: Stops) -> Chooser:
        return Chooser(
            self._plan,
            self._settled,
            self._ledger,
            self._proposals,
            self._guided(stops),
            self._lab,
            self._team,
            self._interrupts,
        )

    def _guided(self, stops: Stops) -> Guide | None:
        """What chooses for the sampler "model"; None where Optuna samples."""
        if stops.short:
            self._note(f"no early stopping: the schedule has fewer than {FEWEST} epochs")
        if self._asked.sampler != "model":
            return None
        from nas.guide import Guide

        # Timing comes after the choice: most of what the model looks at is never trained.
        settle = self._plan.analytic if self._plan.times else self._settled
        told, ordinal = (lambda: self._proposals.told), self._team.ordinal
        return Guide(self._plan, self._ledger, stops, settle, told, ordinal)

    def _join(self, store: Store) -> Team:
        """Raises RunError where others of this study have other settings."""
        if not store.name:
            return Alone(self._run)

        def stored(key: str, repeat: int) -> bool:
            self._ledger.refresh()
            return self._ledger.get(key, repeat) is not None

        return Shared(store.engine, store.name, self._run.record.shared(), stored, store.folder)

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
        self._train(pending)

    def _explore(self) -> None:
        """Proposals until as many different networks are trained as were asked for."""
        wanted = self._asked.trials
        self._observer.phase("search", wanted - self._settled.searched)
        exhausted = False
        while self._settled.searched < wanted:
            # A latency is not measured beside a training, so all slots are filled at once.
            timing = self._plan.times and self._lab.flying
            full = exhausted = False
            elsewhere = self._team.others()
            while self._lab.free and not (timing or full or exhausted):
                if self._settled.searched + len(self._lab.flying) + elsewhere >= wanted:
                    break
                job = self._chooser.next()
                exhausted, full = job is None, job is Claim.FULL
                if isinstance(job, Job):
                    self._lab.begin(job)
            if not self._wait() and exhausted:
                break
        if (found := self._settled.searched) < wanted:
            self._note(
                f"the space is exhausted: within the limits it holds {found} different networks "
                f"besides the known blocks, fewer than the {wanted} trials asked for"
            )

    def _finals(self) -> None:
        """Further seeds for the leaders and the known blocks."""
        pending = missing(
            self._ledger, self._asked.finalists, self._asked.seeds, self._asked.objectives
        )
        self._observer.phase("finals", len(pending))
        self._train(
            Job(self._plan.read(first.network), repeat, first.known_as) for first, repeat in pending
        )

    def _tests(self) -> None:
        """The test split, read when nothing can change the ranking any more, by one driver."""
        while not self._ledger.tests:
            if self._team.claim("tests", 0) is Claim.OURS:
                keys = self._finalists()
                pending = [r for r in self._ledger.rows if r.key in keys and r.accuracy is not None]
                self._observer.phase("test", len(pending))
                reached = self._lab.judge(pending)
                with self._team.storing("tests", 0) as ours:
                    if ours:
                        means = {key: fmean(values) for key, values in reached.items()}
                        self._ledger.set_tests(means)
            else:
                self._wait()

    def _train(self, jobs: Iterable[Job]) -> None:
        """Train all of these that nobody trains, and wait for those that somebody does."""
        pending = list(jobs)
        while pending:
            pending = [job for job in pending if self._ledger.get(*_what(job)) is None]
            for job in pending:
                if not self._lab.free:
                    break
                if not self._lab.has(job) and self._team.claim(*_what(job)) is Claim.OURS:
                    self._lab.begin(job)
            self._wait()

    def _wait(self) -> bool:
        """Wait a little for what is under way, here or at others; False where nothing is."""
        others = self._team.others()
        if len(self._lab):
            self._lab.receive(GLANCE)
        elif others:
            with self._interrupts.heard():
                time.sleep(GLANCE)
        if self._team.driver:
            self._ledger.refresh()
            self._proposals.refresh()
        return bool(len(self._lab) or others)

    def _winners(self, found: list[Row]) -> None:
        keys = self._finalists()
        for row in found:
            if row.key in keys and row.state == "complete":
                training = shipped(self._ledger.rows, row.key)
                trained = self._plan.proxy(self._plan.read(training.network))
                weights = self._team.weights(training.key, training.repeat)
                write_winner(self._run, row, training, trained, weights)

    # ---- small things ------------------------------------------------------------------------

    def _finalists(self) -> set[str]:
        asked = self._asked
        chosen = finalists(self._ledger.rows, asked.finalists, asked.objectives)
        return {row.key for row in chosen}

    def _refuse_known(self, name: str, candidate: Contender, reason: str) -> None:
        facts = {"candidate": str(candidate), **design_facts(candidate)}
        key = f"refused {name} {candidate}"
        row = Training(key, 0, {}, name, reason=reason, trained=False, facts=facts)
        if self._team.claim(key, 0) is Claim.OURS:
            with self._team.storing(key, 0):
                self._ledger.add(row)
        self._note(f"{name} does not compete: {reason}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._observer.note(text)


def _what(job: Job) -> tuple[str, int]:
    return job.entry.key, job.repeat
