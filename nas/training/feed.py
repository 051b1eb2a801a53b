"""Batches from images kept as they were read: bytes in memory, float32 only for the batch at hand.

CIFAR-10 takes 184 MB so, and 737 MB in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas.datasets.labelled import Stored

DEVICE_SHARE = 4
"""A part goes to a GPU as a whole where it takes less than this part of the free memory."""


class Feed:
    """One part of a data set, for a device."""

    def __init__(self, data: Stored, name: str, device: torch.device) -> None:
        part = data.parts[name]
        images = part.images if part.images.dtype == np.uint8 else part.images.astype(np.float32)
        self.device = device
        self._images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(np.ascontiguousarray(part.labels))
        if device.type == "cuda":
            self._to_gpu()
        self._mean = torch.from_numpy(data.mean).to(device).view(1, -1, 1, 1)
        self._spread = torch.from_numpy(data.spread).to(device).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def pixels(self) -> int:
        """Of one image."""
        return self._images.shape[2] * self._images.shape[3]

    def raw(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) in float32 as they were read, channels last, and their labels."""
        rows = rows.to(self._labels.device)
        images = self._images[rows].to(self.device, non_blocking=True)
        labels = self._labels[rows].to(self.device, non_blocking=True)
        return images.to(torch.float32, memory_format=torch.channels_last), labels.long()

    def normalised(self, images: Tensor) -> Tensor:
        return (images - self._mean) / self._spread

    def _to_gpu(self) -> None:
        free, _ = torch.cuda.mem_get_info(self.device)
        if self._images.nbytes < free // DEVICE_SHARE:
            self._images = self._images.to(self.device)
            self._labels = self._labels.to(self.device)
