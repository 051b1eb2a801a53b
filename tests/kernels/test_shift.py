"""Shift against a depthwise convolution with one-hot filters."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from kernels.shift.reference import shift
from spaces.operators.shift import Shift


@pytest.mark.parametrize("channels", [9, 11, 18, 30])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_it_is_a_depthwise_convolution_with_one_tap(
    channels: int, stride: int, dilation: int
) -> None:
    x = torch.randn(2, channels, 6, 5, dtype=torch.float64)
    filters = torch.zeros(channels, 1, 3, 3, dtype=torch.float64)
    share = channels // 9
    for channel in range(channels):
        if channel < 4 * share:
            tap = channel // share
        elif channel >= channels - 4 * share:
            tap = 8 - (channels - 1 - channel) // share
        else:
            tap = 4
        filters[channel, 0, tap // 3, tap % 3] = 1
    expected = functional.conv2d(
        x, filters, stride=stride, padding=dilation, dilation=dilation, groups=channels
    )
    assert torch.equal(shift(x, 3, dilation, stride), expected)


def test_the_operator_knows_the_taps_of_the_function() -> None:
    operator = Shift(kernel=5, dilation=2)
    x = torch.randn(1, 53, 11, 12)
    moved = shift(x, 5, 2)
    for channel, (row, column) in enumerate(operator.taps(53)):
        assert moved[0, channel, 5, 6] == x[0, channel, 5 + row, 6 + column]
