"""Augmentation of a whole batch on the device where it is, the labels of pixels alongside.

Every random number comes from a generator of the CPU, so that a batch varies in the same way on any
device. What moves in from outside has the mean colour, or that of the border where an image is
resampled; its label is IGNORED.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from nas.datasets.labelled import IGNORED
from nas.training.recipes import Augment

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray, ITU-R BT.601."""

Pair = tuple[Tensor, Tensor]


def recoloured(images: Tensor, colour: float, random: Generator) -> Tensor:
    """Brightness, contrast and saturation of raw images (n, C, H, W), each image its own."""
    if not colour:
        return images
    count, channels = images.shape[:2]
    factors = 1 + colour * (2 * torch.rand(3, count, 1, 1, 1, generator=random) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    images = images * brightness
    luma = torch.tensor(LUMA if channels == 3 else [1 / channels] * channels, device=images.device)
    gray = (images * luma.view(1, -1, 1, 1)).sum(1, keepdim=True)
    mean = gray.mean(dim=(2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    gray = mean + contrast * (gray - mean)
    return gray + saturation * (images - gray)


def moved(images: Tensor, labels: Tensor, how: Augment, flip: bool, random: Generator) -> Pair:
    """Crops, rotations and, where `flip`, mirror images of normalised images (n, C, H, W).

    Labels (n,) stay; labels (n, H, W) go with their pixels.
    """
    if how.area is not None or how.rotate:
        images, labels = _resampled(images, labels, how, random)
    if how.pad:
        images, labels = _shifted(images, labels, how.pad, random)
    if flip:
        turned = (torch.rand(len(images), generator=random) < 0.5).to(images.device)
        images = torch.where(turned.view(-1, 1, 1, 1), images.flip(3), images)
        if labels.ndim == 3:
            labels = torch.where(turned.view(-1, 1, 1), labels.flip(2), labels)
    return images, labels


def _shifted(images: Tensor, labels: Tensor, share: float, random: Generator) -> Pair:
    """A crop of the size of the image, after padding each side by `share` of it."""
    count, _, *sizes = images.shape
    margins = [max(1, round(share * size)) for size in sizes]
    starts = [torch.randint(2 * m + 1, (count, 1), generator=random) for m in margins]
    rows, columns = (
        (start + torch.arange(size)).to(images.device)
        for start, size in zip(starts, sizes, strict=True)
    )
    each = torch.arange(count, device=images.device)[:, None, None]
    at = (each, rows[:, :, None], columns[:, None, :])
    border = (margins[1], margins[1], margins[0], margins[0])
    images = pad(images, border).permute(0, 2, 3, 1)[at].permute(0, 3, 1, 2)
    return images, pad(labels, border, value=IGNORED)[at] if labels.ndim == 3 else labels


def _resampled(images: Tensor, labels: Tensor, how: Augment, random: Generator) -> Pair:
    """A crop of a random area, aspect and angle, enlarged to the size of the image: bilinear for
    pixels, nearest for labels."""
    grid = affine_grid(
        _windows(images.shape, how, random).to(images.device), list(images.shape), False
    )
    images = grid_sample(images, grid, padding_mode="border", align_corners=False)
    if labels.ndim == 3:
        shifted = (labels - IGNORED).unsqueeze(1).to(torch.float32)  # outside is 0
        found = grid_sample(shifted, grid, mode="nearest", align_corners=False)
        labels = found.squeeze(1).round().long() + IGNORED
    return images, labels


def _windows(shape: torch.Size, how: Augment, random: Generator) -> Tensor:
    """Where each output is taken from: (n, 2, 3) on coordinates from -1 to 1, x first."""
    count, _, height, width = shape
    share, ratio, across, down, turn = torch.rand(5, count, generator=random)
    low, high = how.area or (1.0, 1.0)
    area = low + (high - low) * share
    narrow, wide = (math.log(limit) for limit in how.aspect)
    aspect = torch.exp(narrow + (wide - narrow) * ratio)
    x = torch.sqrt(area * aspect).clamp(max=1)
    y = torch.sqrt(area / aspect).clamp(max=1)
    angle = math.radians(how.rotate) * (2 * turn - 1)
    sine, cosine = torch.sin(angle), torch.cos(angle)
    left, top = (1 - x) * (2 * across - 1), (1 - y) * (2 * down - 1)
    first = torch.stack([x * cosine, -y * sine * height / width, left], 1)
    second = torch.stack([x * sine * width / height, y * cosine, top], 1)
    return torch.stack([first, second], 1)
