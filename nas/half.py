"""Training in bfloat16 where that is faster. Importing this imports torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Half(nn.Module):
    """A model whose convolutions and products run in bfloat16; weights and scores stay float32.

    bfloat16 has the exponents of float32, so no loss has to be scaled (Kalamkar et al. 2019).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            scores: Tensor = self.model(images)
        return scores.float()
