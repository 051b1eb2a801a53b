"""study.db: two Optuna studies in one SQLite file, and what a killed run finds there.

"trainings" is a ledger. One row is one training of one network with one seed, added with its
result in a single transaction: it is there or not, and what is there is never done again.
"search" is the sampler's memory: one trial a proposal, told what the ledger knows. A proposal is a
function of the seed and of the trials before it, so that a resumed run goes on as it would have.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import storage_errors

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import Trial

Choice = str | int


@dataclass(frozen=True)
class Training:
    """A network, trained with one seed, or refused.

    network: `Sized.to_dict` or what else describes it. accuracy is None exactly where `reason`
    says why; `trained` tells whether it was tried at all.
    """

    key: str
    repeat: int
    network: Mapping[str, Any]
    known_as: str | None = None
    accuracy: float | None = None
    reason: str | None = None
    trained: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """Genes that the sampler asks for, and what an earlier attempt had settled of them."""

    number: int
    genes: Mapping[str, Choice]
    settled: Mapping[str, Any] | None = None


class Ledger:
    """The rows of "trainings", in memory and on the disk."""

    def __init__(self, storage: RDBStorage, folder: Path) -> None:
        self._folder = folder
        with storage_errors(folder):
            self._study = _study(storage, "trainings")
            trials = self._study.get_trials(deepcopy=False)
        self.rows = [Training(**json.loads(trial.user_attrs["row"])) for trial in trials]
        self._first = {(row.key, row.repeat): row for row in self.rows}

    def add(self, row: Training) -> None:
        """Store a finished training; it is durable when this returns."""
        from optuna.trial import TrialState, create_trial

        if not row.trained:
            state = TrialState.PRUNED
        elif row.accuracy is None:
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE
        attrs = {"row": json.dumps(vars(row))}
        with storage_errors(self._folder):
            self._study.add_trial(create_trial(state=state, value=row.accuracy, user_attrs=attrs))
        self.rows.append(row)
        self._first.setdefault((row.key, row.repeat), row)

    def get(self, key: str, repeat: int = 0) -> Training | None:
        return self._first.get((key, repeat))

    @property
    def tests(self) -> Mapping[str, float]:
        """Accuracy on the test split by network key; empty until the ranking is settled."""
        found: Mapping[str, float] = self._study.user_attrs.get("tests", {})
        return found

    def set_tests(self, accuracies: Mapping[str, float]) -> None:
        with storage_errors(self._folder):
            self._study.set_user_attr("tests", dict(accuracies))


class Proposals:
    """Ask and tell on "search", with a fixed flat genome of categorical genes."""

    def __init__(
        self,
        storage: RDBStorage,
        folder: Path,
        genes: Mapping[str, Sequence[Choice]],
        sampler: str,
        seed: int,
    ) -> None:
        from optuna.distributions import CategoricalDistribution

        self._folder, self._sampler, self._seed = folder, sampler, seed
        self._genes: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(choices) for name, choices in genes.items()
        }
        self._open: dict[int, Trial] = {}
        with storage_errors(folder):
            self._study = _study(storage, "search")

    def recover(self, known: Callable[[str], Training | None]) -> None:
        """Settle every proposal that is still open, by this driver or one that is gone.

        It is told where the ledger has the result; otherwise it is queued again and failed, in
        this order, so that none is lost in between.
        """
        from optuna.trial import TrialState

        self._open.clear()
        with storage_errors(self._folder):
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                settled = trial.user_attrs.get("settled")
                row = known(settled["key"]) if settled else None
                if row is not None:
                    self._tell(trial.number, row)
                    continue
                genes = trial.system_attrs.get("fixed_params", {}) | trial.params
                if genes:
                    attrs = {"retry_of": trial.number} | ({"settled": settled} if settled else {})
                    self._study.enqueue_trial(genes, user_attrs=attrs)
                self._study.tell(trial.number, state=TrialState.FAIL)

    def ask(self) -> Proposal:
        """The next proposal; it stays open until it is told, refused or recovered."""
        from optuna.trial import TrialState

        living = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        with storage_errors(self._folder):
            count = len(self._study.get_trials(deepcopy=False, states=living))
            self._study.sampler = _sampler(self._sampler, self._seed, count)
            trial = self._study.ask(self._genes)
            settled = trial.user_attrs.get("settled")
        self._open[trial.number] = trial
        return Proposal(trial.number, trial.params, settled)

    def settle(
        self, number: int, key: str, network: Mapping[str, Any], latency: float | None
    ) -> None:
        """Note which network a proposal became, for a driver that comes later."""
        settled = {"key": key, "network": dict(network), "latency": latency}
        with storage_errors(self._folder):
            self._open[number].set_user_attr("settled", settled)

    def refuse(self, number: int, design: Mapping[str, Any], reason: str) -> None:
        """A proposal breaks a limit: the sampler learns that, and no value is made up."""
        from optuna.trial import TrialState

        trial = self._open.pop(number)
        with storage_errors(self._folder):
            trial.set_user_attr("refused", {**design, "reason": reason})
            trial.set_constraint("feasible", 1.0)
            self._study.tell(number, state=TrialState.PRUNED)

    def tell(self, number: int, row: Training, *, same: bool = False) -> None:
        """What the ledger holds for a proposal; same: the result of an earlier, equal network."""
        trial = self._open.pop(number)
        with storage_errors(self._folder):
            if same:
                trial.set_user_attr("same_as", row.key)
            self._tell(number, row)

    def _tell(self, number: int, row: Training) -> None:
        """A failed training is told as pruned, from which samplers learn, unlike from failed."""
        from optuna.trial import TrialState

        if row.accuracy is None:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, row.accuracy)


def refusals(storage: RDBStorage, folder: Path) -> list[dict[str, Any]]:
    """Each infeasible design that was proposed: design, blocks, reason."""
    with storage_errors(folder):
        trials = _study(storage, "search").get_trials(deepcopy=False)
    found = [trial.user_attrs["refused"] for trial in trials if "refused" in trial.user_attrs]
    return list({(one["design"], *one["blocks"]): one for one in found}.values())


@contextmanager
def opened(folder: Path) -> Iterator[RDBStorage]:
    """The storage of a run, closed again at the end."""
    import optuna

    # Optuna has one verbosity for the whole process; its notes would mix with ours.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / "study.db"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60, check_same_thread=False)

    with storage_errors(folder):
        # A connection of our own: no character of the path can be mistaken for a part of the URL.
        storage = optuna.storages.RDBStorage(
            "sqlite:///study.db", engine_kwargs={"creator": connect}
        )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _study(storage: RDBStorage, name: str) -> Study:
    """The study of this name, begun where there is none; one that is there is only read."""
    import optuna

    if name in optuna.get_all_study_names(storage):
        return optuna.load_study(study_name=name, storage=storage)
    return optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )


def _sampler(name: str, seed: int, count: int) -> BaseSampler:
    """A fresh sampler a proposal: restarting one with its seed would repeat its first designs."""
    from optuna import samplers

    digest = hashlib.sha256(f"{seed} {count}".encode()).digest()
    derived = int.from_bytes(digest[:4], "big")
    if name == "tpe":
        return samplers.TPESampler(multivariate=True, seed=derived)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=derived)
    if name == "gp":
        return samplers.GPSampler(seed=derived)
    return samplers.RandomSampler(seed=derived)
