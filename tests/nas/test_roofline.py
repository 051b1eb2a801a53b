"""The roofline: what each call is charged, and a profile that comes from and goes to a file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nas import calibrate
from nas.cli import run
from nas.files import RunError
from nas.profile import BYTES, FAN_INS, GRAINS, GROUPS, OTHER, PIXELS, TAPS, Profile, default_path
from nas.roofline import estimate
from nas.timed_width import within_latency
from spaces.design import parse
from spaces.network import block

RATE, SPEED, CALL = 1e9, 4e9, 1e-6


def profile(rate: float = RATE, speed: float = SPEED, call: float = CALL) -> Profile:
    """A device of one rate for every convolution."""
    rates = tuple(
        tuple(tuple(tuple(rate for _ in PIXELS) for _ in GROUPS) for _ in FAN_INS[grain])
        for grain in GRAINS
    )
    return Profile(
        device="imagined",
        threads=1,
        dtype="float32",
        versions={},
        date="2026-01-01",
        overheads={"relu": 2 * call, OTHER: call},
        bandwidths=tuple(speed for _ in BYTES),
        rates=tuple((table,) * len(TAPS) for table in rates),
        peaks={"float32": 2 * rate},
    )


def test_a_convolution_costs_its_multiplications_at_its_rate() -> None:
    layer = nn.Conv2d(16, 32, 3, padding=1, groups=4, bias=False)
    mults = 32 * 8 * 8 * 4 * 9
    fast_memory = profile(speed=1e15, call=0)
    assert estimate(layer, (1, 16, 8, 8), fast_memory) == pytest.approx(mults / RATE)


def test_a_convolution_without_arithmetic_costs_its_bytes() -> None:
    layer = nn.Conv2d(16, 32, 1, bias=False)
    moved = 4 * (16 * 64 + 32 * 64 + 16 * 32)
    got = estimate(layer, (1, 16, 8, 8), profile(rate=1e15))
    assert got == pytest.approx(CALL + moved / SPEED)


def test_an_elementwise_call_costs_its_bytes_and_its_own_overhead() -> None:
    got = estimate(nn.ReLU(), (2, 3, 5, 7), profile())
    assert got == pytest.approx(2 * CALL + 2 * 4 * 2 * 3 * 5 * 7 / SPEED)


def test_a_view_is_free_and_a_matrix_product_runs_at_the_peak() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 10, bias=False))
    got = estimate(net, (2, 3, 4, 4), profile(speed=1e15, call=0))
    assert got == pytest.approx(2 * 480 / (2 * RATE))


@pytest.mark.parametrize("text", ["STD", "PWG(4)+DW+PWG(4)@1/4", "LEAN(g=4,s=5)", "IRD", "SIC"])
def test_any_block_has_an_estimate_that_grows_with_the_map(text: str) -> None:
    module = block(text, parse(text), 16, 16, 8, 8).module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    small, large = (estimate(module, (1, 16, s, s), profile()) for s in (8, 16))
    assert 0 < small < large
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_groups_that_fill_vectors_have_their_own_rates() -> None:
    slow = profile()
    fast_grain = tuple(
        tuple(tuple(tuple(10 * r for r in c) for c in b) for b in a) for a in slow.rates[0]
    )
    two = replace(slow, rates=(fast_grain, *slow.rates[1:]))
    took = {
        width: two.convolution(1e9, 0, taps=9, fan_in=width, fan_out=width, groups=4, pixels=64)
        for width in (28, 32)
    }
    assert took[32] == pytest.approx(took[28] / 10)


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profile.json"
    profile().write(path)
    read = Profile.read(path)
    assert json.loads(json.dumps(asdict(read))) == json.loads(json.dumps(asdict(profile())))
    assert read.convolution(1e6, 0, 9, 4, 4, 2, 64) == profile().convolution(1e6, 0, 9, 4, 4, 2, 64)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not a device profile"),
        ("[]", "not a device profile"),
        ('{"version": 99}', "has version 99"),
        ('{"version": 1}', "not a device profile"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(RunError, match=sentence):
        Profile.read(path)
    with pytest.raises(RunError, match="leanfield calibrate"):
        Profile.read(tmp_path / "absent.json")


def test_rates_of_another_grid_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    replace(profile(), rates=profile().rates[:2]).write(path)
    with pytest.raises(RunError, match="rates of shapes"):
        Profile.read(path)


def test_calibrate_refuses_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", "--device", "nowhere", "--json"]) == 2
    assert "nowhere" in capsys.readouterr().out


def test_calibrate_writes_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "_rate", lambda *_: RATE)
    assert run(["calibrate", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["path"] == str(default_path())
    read = Profile.read(default_path())
    assert read.convolution(RATE, 0, 9, 4, 4, 2, 64) == pytest.approx(1)
    assert all(0 < seconds < 1 for seconds in read.overheads.values())
    assert all(speed > 0 for speed in read.bandwidths)


class _Entry:
    """A network of which only the width counts."""

    def __init__(self, width: int) -> None:
        self.width = width


def test_the_estimate_settles_which_network_is_timed_first() -> None:
    from nas.limits import Limits

    timed: list[int] = []

    def measure(entry: _Entry) -> float:
        timed.append(entry.width)
        return 1e-6 * entry.width**2

    found = within_latency(
        _Entry(1000),  # type: ignore[type-var]
        Limits(latency=0.01),
        measure,
        _Entry,
        expect=lambda entry: 1e-6 * entry.width**2,
    )
    assert timed[0] == 100
    assert found.width == 100
    assert max(timed) < 130
