"""Weights with the specification of their network, as safetensors: numbers, no pickle.

Format: https://github.com/huggingface/safetensors. The specification (`Sized.to_dict`) is JSON in
the header under the key `leanfield`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.candidates import Sized

if TYPE_CHECKING:
    from torch import Tensor

KEY = "leanfield"


def to_bytes(state: Mapping[str, Tensor], sized: Sized) -> bytes:
    """The content of a safetensors file that holds the weights of this network.

    Raises ValueError unless names and shapes are those of `sized.module()`.
    """
    import torch
    from safetensors.torch import save

    with torch.device("meta"):
        expected = sized.module().state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, tensor in expected.items():
        if found.get(name) != tuple(tensor.shape):
            raise ValueError(
                f"the weights are not those of {sized.candidate} at width {sized.width}: {name} "
                f"has shape {found.get(name, 'none')} instead of {tuple(tensor.shape)}"
            )
    if stray := sorted(set(found) - set(expected)):
        raise ValueError(f"the weights hold {stray[0]}, which the network does not have")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return save(tensors, {KEY: json.dumps(sized.to_dict())})


def read(path: Path) -> tuple[Sized, dict[str, Tensor]]:
    """The network and its weights. Raises ValueError where the file holds no such thing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} does not say which network its weights belong to")
    return Sized.from_dict(json.loads(metadata[KEY])), tensors
