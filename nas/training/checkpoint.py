"""Where a training stands, in one file: whole or absent, and no pickle.

A safetensors file (https://github.com/huggingface/safetensors) with the tensors of the model under
`model.` and those of the optimiser under `optimiser.<parameter>.`; its header holds the rest as
JSON. One file, so that no kill can leave two that do not belong together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nas.files import RunError, write_atomically

KEY = "leanfield.training"
MODEL, OPTIMISER = "model.", "optimiser."


def write(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Replace the checkpoint as a whole; `state` is what JSON can hold."""
    tensors = {MODEL + name: value for name, value in model.state_dict().items()}
    numbers: dict[str, Any] = {}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            key = f"{OPTIMISER}{index}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                numbers[key] = value
    header = {KEY: json.dumps({"state": state, "numbers": numbers})}
    write_atomically(path, save({k: v.cpu().contiguous() for k, v in tensors.items()}, header))


def read_state(path: Path) -> dict[str, Any]:
    """The JSON part. Raises RunError for a file that is damaged."""
    state, _, _ = _opened(path)
    return state


def read(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put model and optimiser where the checkpoint left them; returns the state.

    Raises RunError for a file that is damaged or of another network.
    """
    state, numbers, tensors = _opened(path)
    weights = {k.removeprefix(MODEL): v for k, v in tensors.items() if k.startswith(MODEL)}
    entries: dict[int, dict[str, Any]] = {}
    for key, value in (tensors | numbers).items():
        if key.startswith(OPTIMISER):
            index, name = key.removeprefix(OPTIMISER).split(".", 1)
            entries.setdefault(int(index), {})[name] = value
    try:
        model.load_state_dict(weights)
        optimiser.load_state_dict(
            {"state": entries, "param_groups": optimiser.state_dict()["param_groups"]}
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(f"{path} is of another network: {error}") from error
    return state


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """(state, numbers of the optimiser, tensors)."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return dict(header["state"]), dict(header["numbers"]), tensors
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is not a checkpoint of a training: {error}") from error


def write_weights(path: Path, model: nn.Module) -> None:
    """The weights alone, for use elsewhere."""
    write_atomically(path, save({k: v.cpu().contiguous() for k, v in model.state_dict().items()}))


def read_weights(path: Path, model: nn.Module) -> None:
    """Raises RunError for a file that is damaged or of another network."""
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise RunError(f"{path} does not hold the weights of this network: {error}") from error
