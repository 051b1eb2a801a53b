"""The two experiments on one network, as functions of plain dictionaries.

They run wherever the executor puts them, perhaps on another host, so they take names and numbers,
never objects or files: the network as `Entry.to_dict`, the data by source and fingerprint, weights
as the bytes of a safetensors file. Data is kept between the tasks of a process.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.candidates import Entry, Sized
from nas.datasets import DataError, Dataset, load
from nas.executors import Work
from nas.rivals import entry_from_dict
from nas.stopping import NEVER

if TYPE_CHECKING:
    import torch

_kept: list[Dataset] = []


class Trainer(NamedTuple):
    """train(task) -> {accuracy, loss, curve, seconds, failure, stopped, weights}; judge(task) ->
    {accuracy, loss}."""

    train: Work
    judge: Work


def keep(data: Dataset, gpu: int | None = None) -> None:
    """Use this data set for the tasks that name its fingerprint, and of all GPUs only this one."""
    _kept[:] = [data]
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)


def train_network(task: Mapping[str, Any]) -> dict[str, Any]:
    """Train on the train split, measure on the validation split, give the weights back.

    task: network, data, fingerprint, schedule, seed, threads, device, half (bfloat16 or not),
    choices (the frozen table of `kernels.choice`), and perhaps rungs: [epoch, floor or None] of
    each epoch after which it is judged before the end. The result says which implementations
    served: kernels.
    Raises ArithmeticError where the module has not the parameters that its design was counted for.
    """
    from safetensors.torch import save

    from kernels import choice
    from nas.half import Half
    from nas.schedule import Schedule
    from nas.threads import threads
    from nas.train import train

    entry = entry_from_dict(task["network"])
    module = entry.module(task["seed"])
    built = sum(parameter.numel() for parameter in module.parameters())
    if built != entry.cost.params:
        raise ArithmeticError(
            f"internal error: {entry.candidate} at width {entry.width} was counted at "
            f"{entry.cost.params} parameters and has {built}; it was not trained"
        )
    data = _data(task)
    schedule = Schedule(**task["schedule"])
    with threads(task["threads"]), choice.frozen(task["choices"]):
        choice.record(clear=True)
        outcome = train(
            Half(module) if task["half"] else module,
            data,
            schedule,
            task["seed"],
            floors=floors_of(task),
            device=task["device"],
            memory_format=_format(entry),
        )
    _give_back()
    state = {name: value.cpu().contiguous() for name, value in module.state_dict().items()}
    kept = outcome.failure is None and outcome.stopped is None
    weights = save(state) if kept else None
    return {**asdict(outcome), "weights": weights, "kernels": choice.record()}


def judge_network(task: Mapping[str, Any]) -> dict[str, Any]:
    """Measure trained weights on the test split.

    task: network, data, fingerprint, threads, device, weights, choices.
    """
    from safetensors.torch import load as weights_of

    from kernels import choice
    from nas.threads import threads
    from nas.train import evaluate

    entry = entry_from_dict(task["network"])
    module = entry.module()
    module.load_state_dict(weights_of(task["weights"]))
    with threads(task["threads"]), choice.frozen(task["choices"]):
        accuracy, loss = evaluate(module, _data(task).test, task["device"], _format(entry))
    return {"accuracy": accuracy, "loss": loss}


def floors_of(task: Mapping[str, Any]) -> dict[int, float]:
    """The floor of each rung of a task, minus infinity where there is none."""
    return {epoch: NEVER if floor is None else floor for epoch, floor in task.get("rungs", ())}


def _give_back() -> None:
    """Return freed memory to the system: glibc would keep the maps of the largest training, and two
    workers more than 2 GiB."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _format(entry: Entry) -> torch.memory_format:
    """Channels last for our own blocks; a user's block may call `view` on its maps."""
    import torch

    return torch.channels_last if isinstance(entry, Sized) else torch.contiguous_format


def _data(task: Mapping[str, Any]) -> Dataset:
    """The data of a task. Raises DataError where it is no longer what the run began with."""
    if not _kept or _kept[0].fingerprint != task["fingerprint"]:
        keep(load(task["data"]))
    if _kept[0].fingerprint != task["fingerprint"]:
        raise DataError(f"{task['data']}: the data has changed since the run began")
    return _kept[0]


TORCH = Trainer(train_network, judge_network)
