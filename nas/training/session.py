"""A real training in a folder of its own: begun, resumed, ended, handed over.

train.json         what was asked, versions, fingerprint of the data
last.safetensors   the checkpoint;  best.safetensors  the weights of the best epoch
log.csv            one line an epoch;  tensorboard/  the same where asked for
result.json        the end: the best epoch, and the test split, which is read once
<design>.py        stand-alone code with its weights, for a candidate of a search
lock               held by the process that trains
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.datasets import DataError, Stored, mask_folder, store
from nas.files import RunError, storage_errors, write_atomically
from nas.interrupt import Interrupts
from nas.training.rates import Epoch
from nas.training.recipes import Recipe, Task, recipe
from nas.training.subject import Subject

if TYPE_CHECKING:
    from torch import nn

    from nas.training.long import Conditions

SCHEMA = 1
PLAN, RESULT = "train.json", "result.json"


@dataclass(frozen=True)
class Plan:
    """Everything that settles a training; what is None is the recipe's own."""

    subject: Mapping[str, Any]
    data: str
    fingerprint: str
    recipe: str
    epochs: int | None
    batch: int | None
    learning_rate: float | None
    seed: int
    device: str
    precision: Literal["float32", "bf16"]
    flip: bool
    threads: int
    tensorboard: bool

    @property
    def task(self) -> Task:
        return task_of(self.data)

    def settled(self) -> Recipe:
        """Raises ValueError for an unknown recipe or a value out of range."""
        return recipe(
            self.recipe,
            self.task,
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True)
class Outcome:
    """How far a training came; the last three are None unless it is finished."""

    folder: Path
    title: str
    epochs: int
    past: tuple[Epoch, ...]
    test_accuracy: float | None = None
    test_mean_iou: float | None = None
    files: tuple[Path, ...] | None = None

    @property
    def best(self) -> Epoch | None:
        """The first of the best epochs on the validation split."""
        return max(self.past, key=lambda epoch: epoch.score, default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "network": self.title,
            "finished": self.files is not None,
            "epochs": len(self.past),
            "epochs_asked": self.epochs,
            "best": None if self.best is None else self.best._asdict(),
            "test_accuracy": self.test_accuracy,
            "test_mean_iou": self.test_mean_iou,
            "files": [str(path) for path in self.files or ()],
        }


def task_of(data: str) -> Task:
    return "segmentation" if data.startswith(mask_folder.PREFIX) else "classification"


def read_data(data: str) -> Stored:
    """Raises DataError."""
    return mask_folder.store(data) if task_of(data) == "segmentation" else store(data)


def begin(plan: Plan, data: Stored, folder: Path, watch: Callable[[Epoch], None]) -> Outcome:
    """A new training in `folder`. Raises RunError where it is in use or not empty."""
    if plan.tensorboard:
        from nas.training.log import writer_class

        writer_class()  # what is missing is said before anything is written
    if folder.exists() and any(folder.iterdir()):
        go_on = f"go on with --resume {folder} or " if (folder / PLAN).is_file() else ""
        raise RunError(f"{folder} exists already; {go_on}choose another folder")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        content = {"schema": SCHEMA, "plan": asdict(plan), "recipe": asdict(plan.settled())}
        write_atomically(folder / PLAN, json.dumps(content, indent=2).encode() + b"\n")
    return _trained(plan, data, folder, watch)


def resume(folder: Path, watch: Callable[[Epoch], None]) -> Outcome:
    """Go on where the last whole epoch ended.

    Raises RunError for a folder that holds no training of this version, DataError where the data
    is no longer what the training began with.
    """
    plan = read_plan(folder)
    data = read_data(plan.data)
    if data.fingerprint != plan.fingerprint:
        raise DataError(f"{plan.data}: the data has changed since the training began")
    return _trained(plan, data, folder, watch)


def read_plan(folder: Path) -> Plan:
    """What train.json says. Raises RunError."""
    file = folder / PLAN
    if not file.is_file():
        raise RunError(f"{folder} is not the folder of a training: it has no {PLAN}")
    try:
        content = json.loads(file.read_bytes())
        found = content.get("schema")
        if found != SCHEMA:
            raise RunError(f"{file} has schema {found}; this version reads {SCHEMA} only")
        plan = Plan(**content["plan"])
        same = json.loads(json.dumps(asdict(plan.settled()))) == content["recipe"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{file} is damaged: {error}") from error
    if not same:
        raise RunError(f"the recipe {plan.recipe} has changed since {folder} was begun; begin anew")
    return plan


def _trained(plan: Plan, data: Stored, folder: Path, watch: Callable[[Epoch], None]) -> Outcome:
    from nas.threads import threads
    from nas.training import log
    from nas.training.long import LAST, Conditions, train_long

    subject = Subject.from_dict(plan.subject)
    chosen = plan.settled()
    past: list[Epoch] = []
    conditions = Conditions(
        plan.seed,
        plan.device,
        plan.precision,
        plan.flip,
        subject.memory_format,
    )
    model = subject.module(plan.seed)
    interrupts = Interrupts()
    with ExitStack() as stack:
        stack.enter_context(_locked(folder))
        stack.enter_context(threads(plan.threads))
        stack.enter_context(interrupts.installed())
        stack.enter_context(storage_errors(folder))
        past += _past(folder / LAST)
        board = log.tensorboard(folder / "tensorboard", len(past)) if plan.tensorboard else None

        def finished(epoch: Epoch) -> None:
            past.append(epoch)
            log.write_csv(folder / "log.csv", past)
            if board is not None:
                log.write_epoch(board, epoch)
            watch(epoch)

        try:
            train_long(
                model,
                data,
                chosen,
                folder,
                conditions,
                watch=finished,
                check=interrupts.check,
            )
        except KeyboardInterrupt:
            return Outcome(folder, subject.title, chosen.epochs, tuple(past))
        finally:
            if board is not None:
                board.close()
        log.write_csv(folder / "log.csv", past)
        return _ended(plan, subject, model, data, folder, past, conditions)


def _ended(
    plan: Plan,
    subject: Subject,
    model: nn.Module,
    data: Stored,
    folder: Path,
    past: list[Epoch],
    conditions: Conditions,
) -> Outcome:
    """Measure the weights of the best epoch on the test split and hand them over."""
    import torch

    from nas.exports import export
    from nas.training.feed import Feed
    from nas.training.long import BEST, measure

    feed = Feed(data, "test", torch.device(plan.device))
    test = measure(model, feed, data.shape.classes, conditions)
    best = max(past, key=lambda epoch: epoch.score)
    files = [folder / BEST]
    if subject.sized is not None:
        facts = {"data": plan.data, "accuracy": best.accuracy, "test_accuracy": test.accuracy}
        files += export(subject.sized, model.state_dict(), folder, "python", facts)
    outcome = Outcome(
        folder,
        subject.title,
        plan.settled().epochs,
        tuple(past),
        test.accuracy,
        test.mean_iou,
        tuple(files),
    )
    write_atomically(folder / RESULT, json.dumps(outcome.to_dict(), indent=2).encode() + b"\n")
    return outcome


def _past(checkpoint: Path) -> list[Epoch]:
    """The epochs that a checkpoint knows of, none where there is none."""
    from nas.training.checkpoint import read_state

    if not checkpoint.is_file():
        return []
    return [Epoch(*line) for line in read_state(checkpoint)["past"]]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder is this process's own. Raises RunError while another one trains in it."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder} is in use by another training; wait for its end or stop it first"
            ) from None
        yield
