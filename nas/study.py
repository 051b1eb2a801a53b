"""The storage of a run: Optuna studies, in its own SQLite file or in a PostgreSQL database.

"trainings" is a ledger. One row is one training of one network with one seed, added with its
result in a single transaction: it is there or not, and what is there is never done again.
"search" is the sampler's memory (`nas.proposals`): one trial a proposal, added when its result is
known. An audit adds a further ledger (`nas.auditor`). Nothing that is still under way stands in any
of them, so a kill leaves nothing to clear away.

Optuna reads a study object by object, 10,000 trials in 6 s. What we need of a trial stands in one
attribute, so `Store.notes` reads them all with one query in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.files import storage_errors
from nas.objectives import ACCURACY, costs_of

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from sqlalchemy import Engine

    from nas.run import Settings

TRAININGS, SEARCH = "trainings", "search"
SEARCHED = (TRAININGS, SEARCH)
"""The studies that have the objectives of the search."""

NOTES = (
    "SELECT trials.trial_id, value_json FROM trials JOIN trial_user_attributes "
    "ON trials.trial_id = trial_user_attributes.trial_id "
    "WHERE study_id = :study AND key = :key AND trials.trial_id > :after ORDER BY trials.trial_id"
)
"""Of Optuna's schema; `study_id` is locked while a trial is added, so that the ids only rise."""


@dataclass(frozen=True)
class Training:
    """A network, trained with one seed, or refused.

    network: `Sized.to_dict` or what else describes it. accuracy is None exactly where `reason`
    says why; `trained` tells whether it was tried at all, `stopped` after how many epochs it was
    given up (`nas.stopping`).
    """

    key: str
    repeat: int
    network: Mapping[str, Any]
    known_as: str | None = None
    accuracy: float | None = None
    reason: str | None = None
    trained: bool = True
    stopped: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """An open storage. name: of the study that several drivers share, "" in a run's own file.

    objectives: of the search; those beyond accuracy are to be small.
    """

    storage: RDBStorage
    folder: Path
    name: str = ""
    objectives: tuple[str, ...] = (ACCURACY,)

    @property
    def engine(self) -> Engine:
        return self.storage.engine

    def study(self, part: str) -> Study:
        """The study of this name, begun where there is none; one that is there is only read."""
        import optuna

        name = f"{self.name} {part}" if self.name else part
        with storage_errors(self.folder):
            if name in optuna.get_all_study_names(self.storage):
                return optuna.load_study(study_name=name, storage=self.storage)
            return optuna.create_study(
                storage=self.storage,
                study_name=name,
                directions=directions(self.objectives if part in SEARCHED else (ACCURACY,)),
                load_if_exists=True,
            )

    def notes(self, study: Study, key: str, after: int = -1) -> list[tuple[int, dict[str, Any]]]:
        """(trial id, attribute `key`) of each trial of a study beyond the id `after`, in order."""
        from sqlalchemy import text

        asked = {"study": study._study_id, "key": key, "after": after}
        with storage_errors(self.folder), self.engine.connect() as connection:
            found = connection.execute(text(NOTES), asked).all()
        # An attribute that was given as a string of JSON stands in JSON twice.
        read = ((number, json.loads(value)) for number, value in found)
        return [(n, json.loads(value) if isinstance(value, str) else value) for n, value in read]


class Ledger:
    """The rows of "trainings", or of another study of such rows, in memory and in the storage."""

    def __init__(self, store: Store, part: str = TRAININGS) -> None:
        self._store = store
        self._objectives = store.objectives if part == TRAININGS else (ACCURACY,)
        self._study = store.study(part)
        self._seen = -1
        self.rows: list[Training] = []
        self._first: dict[tuple[str, int], Training] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what other drivers have added."""
        for number, row in self._store.notes(self._study, "row", self._seen):
            self._seen = number
            self._take(Training(**row))

    def add(self, row: Training) -> None:
        """Store a finished training; it is durable when this returns."""
        from optuna.trial import TrialState, create_trial

        if not row.trained or row.stopped is not None:
            state = TrialState.PRUNED
        elif row.accuracy is None:
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE
        trial = create_trial(
            state=state,
            values=values(row, self._objectives),
            intermediate_values={row.stopped: row.facts["curve"][-1]} if row.stopped else None,
            user_attrs={"row": json.dumps(vars(row))},
        )
        with storage_errors(self._store.folder):
            add(self._study, trial)
        self._take(row)

    def get(self, key: str, repeat: int = 0) -> Training | None:
        return self._first.get((key, repeat))

    @property
    def tests(self) -> Mapping[str, float]:
        """Accuracy on the test split by network key; empty until the ranking is settled."""
        with storage_errors(self._store.folder):
            found: Mapping[str, float] = self._study.user_attrs.get("tests", {})
        return found

    def set_tests(self, accuracies: Mapping[str, float]) -> None:
        with storage_errors(self._store.folder):
            self._study.set_user_attr("tests", dict(accuracies))

    @property
    def timed(self) -> dict[str, tuple[dict[str, Any], float]]:
        """What `set_timed` was given, by candidate."""
        with storage_errors(self._store.folder):
            attrs = self._study.user_attrs
        notes = [note for name, note in attrs.items() if name.startswith("timed ")]
        return {note["candidate"]: (note["network"], note["latency"]) for note in notes}

    def set_timed(self, candidate: str, network: Mapping[str, Any], latency: float) -> None:
        """Which network the limit of latency left of a candidate, so that it is timed once only."""
        name = hashlib.sha256(candidate.encode()).hexdigest()[:20]
        note = {"candidate": candidate, "network": dict(network), "latency": latency}
        with storage_errors(self._store.folder):
            self._study.set_user_attr(f"timed {name}", note)

    def _take(self, row: Training) -> None:
        if (row.key, row.repeat) not in self._first:
            self._first[row.key, row.repeat] = row
            self.rows.append(row)


def refusals(store: Store) -> list[dict[str, Any]]:
    """Each infeasible design that was proposed: design, blocks, reason."""
    told = store.notes(store.study(SEARCH), "told")
    found = [note["refused"] for _, note in told if note["refused"]]
    return list({(one["design"], *one["blocks"]): one for one in found}.values())


def directions(objectives: Sequence[str]) -> list[Literal["maximize", "minimize"]]:
    """Accuracy is to be large, costs small."""
    return ["maximize" if name == ACCURACY else "minimize" for name in objectives]


def values(row: Training, objectives: Sequence[str]) -> list[float] | None:
    """What a training reached in each objective, None where it has no accuracy."""
    if row.accuracy is None:
        return None
    return [row.accuracy, *costs_of(row.facts, objectives).values()]


def add(study: Study, trial: FrozenTrial) -> None:
    """Add a trial in one transaction, without reading the others."""
    study._storage.create_new_trial(study._study_id, template_trial=trial)


def study_of(folder: Path, settings: Settings) -> AbstractContextManager[Store]:
    """The storage of the run in `folder`, as `opened`."""
    return opened(folder, settings.storage, settings.study, settings.objectives)


@contextmanager
def opened(
    folder: Path,
    url: str | None = None,
    name: str = "",
    objectives: tuple[str, ...] = (ACCURACY,),
) -> Iterator[Store]:
    """The storage of a run, closed again at the end: folder/study.db, or the study `name` at `url`.

    Raises RunError where the file or the database cannot be used.
    """
    import optuna

    # Optuna has one verbosity for the whole process; its notes would mix with ours.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_errors(folder):
        storage = _own_file(folder) if url is None else _database(url)
    try:
        yield Store(storage, folder, "" if url is None else name, objectives)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _own_file(folder: Path) -> RDBStorage:
    import optuna

    file = folder / "study.db"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60, check_same_thread=False)

    # A connection of our own: no character of the path can be mistaken for a part of the URL.
    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def _database(url: str) -> RDBStorage:
    """The tables of Optuna and our own, made by one driver while others wait."""
    import optuna
    from sqlalchemy import create_engine, make_url, text

    from kernels.backends import MissingComponentError
    from nas.team_tables import TABLES

    # SQLAlchemy's own choice of a PostgreSQL driver differs between its versions.
    at = make_url(url).set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(at)
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"a study in PostgreSQL needs what is not installed ({error}); "
            "pip install 'leanfield[postgresql]'"
        ) from None
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('leanfield'))"))
            storage = optuna.storages.RDBStorage(at.render_as_string(hide_password=False))
            TABLES.create_all(connection)
            connection.commit()
    finally:
        engine.dispose()
    return storage
