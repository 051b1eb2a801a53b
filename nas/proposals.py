"""Which design next: Optuna's samplers on a study in memory, kept in the study "search".

A proposal is a function of the seed and of what was told before it, so that a resumed run goes on
as it would have. A proposal that is under way stands in memory only: after a kill it is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nas.files import storage_errors
from nas.objectives import costs_of
from nas.study import SEARCH, Store, Training, add, directions

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

Choice = str | int

RECENT = 1000
"""Of more results than this the sampler sees the latest, in steps of half as many, ..."""
BEST = 100
"""... and this many of the best before them. TPE sets at most 25 apart as good."""


@dataclass(frozen=True)
class Proposal:
    """Genes that the sampler asks for; the number identifies the proposal in this process."""

    number: int
    genes: Mapping[str, Choice]


@dataclass(frozen=True)
class Told:
    """What a proposal came to. value: its accuracy, None where it was refused or where its training
    failed or was stopped; costs: of the other objectives. stopped: epochs, and accuracy there.

    refused: design, blocks and reason where a limit forbids it. same_as: the key of an earlier,
    equal network whose value this is. driver: who added it. notes: what the sampler wrote down.
    """

    genes: Mapping[str, Choice]
    value: float | None
    refused: Mapping[str, Any] | None = None
    costs: tuple[float, ...] = ()
    stopped: tuple[int, float] | None = None
    key: str | None = None
    same_as: str | None = None
    driver: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> list[float] | None:
        """Of each objective."""
        return None if self.value is None else [self.value, *self.costs]


class Proposals:
    """Ask and tell, with a fixed flat genome of categorical genes."""

    def __init__(
        self,
        store: Store,
        genes: Mapping[str, Sequence[Choice]],
        sampler: str,
        seed: int,
        driver: str = "",
        ordinal: int = 0,
    ) -> None:
        """driver, ordinal: name and number of this driver, among those that share the study."""
        from optuna.distributions import CategoricalDistribution

        self._store, self._sampler, self._seed = store, sampler, seed
        self._driver, self._ordinal = driver, ordinal
        self._genes: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(choices) for name, choices in genes.items()
        }
        self._study = store.study(SEARCH)
        # With several objectives Optuna takes no values on the way of a trial.
        self._single = len(store.objectives) == 1
        self._seen = -1
        self._told: list[Told] = []
        self._open: dict[int, Trial] = {}
        self._asked = self._dropped = 0
        self._memory: Study | None = None
        self._from = 0
        self.refresh()
        self._window()

    def refresh(self) -> None:
        """Take in what other drivers were told."""
        for number, note in self._store.notes(self._study, "told", self._seen):
            self._seen, told = number, Told(**note)
            if self._memory is None or told.driver != self._driver:
                self._told.append(told)
                if self._memory is not None:
                    self._memory.add_trial(self._trial(told))

    @property
    def count(self) -> int:
        """Proposals so far, those of other drivers included."""
        return len(self._told) + len(self._open) + self._dropped

    @property
    def told(self) -> Sequence[Told]:
        """What they came to, in order."""
        return self._told

    def ask(self, genes: Mapping[str, Choice] | None = None) -> Proposal:
        """The next proposal; it stays open until it is told, refused or dropped.

        genes: of a proposal that the sampler is not asked for.
        """
        count = self.count
        memory = self._window()
        if genes is not None:
            memory.enqueue_trial(dict(genes))
        memory.sampler = _sampler(self._sampler, self._seed, count, self._ordinal)
        trial = memory.ask(self._genes)
        self._asked += 1
        self._open[self._asked] = trial
        return Proposal(self._asked, trial.params)

    def refuse(self, number: int, design: Mapping[str, Any], reason: str) -> None:
        """A proposal breaks a limit: the sampler learns that, and no value is made up."""
        self._open[number].set_constraint("feasible", 1.0)
        self._tell(number, None, refused={**design, "reason": reason})

    def tell(self, number: int, row: Training, *, same: bool = False) -> None:
        """What the ledger holds for a proposal; same: the result of an earlier, equal network."""
        facts: dict[str, Any] = {"key": row.key, "same_as": row.key if same else None}
        if row.accuracy is not None:
            facts["costs"] = tuple(costs_of(row.facts, self._store.objectives).values())
        if row.stopped is not None:
            facts["stopped"] = (row.stopped, row.facts["curve"][-1])
        self._tell(number, row.accuracy, **facts)

    def drop(self, number: int) -> None:
        """Another driver trains this one: it tells the result."""
        from optuna.trial import TrialState

        trial = self._open.pop(number)
        trial.study.tell(trial.number, state=TrialState.FAIL)
        self._dropped += 1

    def _tell(self, number: int, value: float | None, **facts: Any) -> None:
        """A failed training is told as pruned, from which samplers learn, unlike from failed."""
        from optuna.trial import TrialState

        open_trial = self._open.pop(number)
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        told = Told(open_trial.params, value, driver=self._driver, **facts)
        if told.stopped is not None and self._single:
            open_trial.report(told.stopped[1], told.stopped[0])
        trial = open_trial.study.tell(open_trial.number, told.values, state=state)
        told = replace(told, notes=trial.system_attrs)
        self._told.append(told)
        with storage_errors(self._store.folder):
            add(self._study, self._trial(told, {"told": asdict(told)}))

    def _window(self) -> Study:
        """The results that the sampler sees, and the open proposals. Which results depends on how
        many there are, not on when this process began."""
        import optuna

        start = max(0, (len(self._told) - RECENT) // (RECENT // 2) * (RECENT // 2))
        if self._memory is not None and start == self._from:
            return self._memory
        wanted = directions(self._store.objectives)
        self._memory, self._from = optuna.create_study(directions=wanted), start
        early = [(told.value, -index) for index, told in enumerate(self._told[:start])]
        best = sorted(((v, i) for v, i in early if v is not None), reverse=True)[:BEST]
        kept = [self._told[index] for index in sorted(-i for _, i in best)]
        self._memory.add_trials(self._trial(told) for told in [*kept, *self._told[start:]])
        for number, trial in self._open.items():
            self._memory.add_trial(trial.study.get_trials(deepcopy=False)[trial.number])
            self._open[number] = optuna.trial.Trial(self._memory, self._memory.trials[-1]._trial_id)
        return self._memory

    def _trial(self, told: Told, attrs: Mapping[str, Any] | None = None) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        return create_trial(
            state=TrialState.PRUNED if told.value is None else TrialState.COMPLETE,
            values=told.values,
            intermediate_values=dict([told.stopped]) if told.stopped and self._single else None,
            params=dict(told.genes),
            distributions=self._genes,
            user_attrs=dict(attrs or {}),
            system_attrs=dict(told.notes),
        )


def _sampler(name: str, seed: int, count: int, ordinal: int) -> BaseSampler:
    """A fresh sampler a proposal: restarting one with its seed would repeat its first designs."""
    from optuna import samplers

    text = f"{seed} {count} {ordinal}" if ordinal else f"{seed} {count}"
    derived = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    if name == "tpe":
        return samplers.TPESampler(multivariate=True, seed=derived)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=derived)
    if name == "gp":
        return samplers.GPSampler(seed=derived)
    return samplers.RandomSampler(seed=derived)
