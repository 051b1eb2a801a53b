"""A user's block competes like any other; one that does not work is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.budget import Refusal, solve
from nas.candidates import Candidate, Sized, Task
from nas.limits import Limits
from nas.rivals import (
    RivalCandidate,
    RivalError,
    RivalSized,
    entry_from_dict,
    fingerprint,
    load,
    solve_rival,
    step,
)
from spaces.design import parse
from spaces.operator import DesignError

TASK = Task((1, 16, 16), 10)

SOURCE = '''
from torch import nn
from torch.nn import functional
from spaces.design import parse
from spaces.network import block

def Separable(c, f, stride):
    return block("b", parse("DW+PW"), c, f, 16, 16, stride).module()

class Grouped(nn.Module):
    """Groups of 8, a bias, and a squeeze through linear layers."""
    def __init__(self, c, f, stride):
        super().__init__()
        self.conv = nn.Conv2d(c, f, 3, stride, 1, groups=8)
        self.squeeze = nn.Linear(f, f)
    def forward(self, x):
        y = self.conv(x)
        gate = self.squeeze(functional.adaptive_avg_pool2d(y, 1).flatten(1))
        return y * gate[:, :, None, None]

class Needy(Grouped):
    """Reads a value while it runs, which the meta device has not."""
    def forward(self, x):
        y = super().forward(x)
        return y if y.abs().sum().item() >= 0 else y

class Narrow(nn.Conv2d):
    def __init__(self, c, f, stride):
        super().__init__(c, f, 3, stride)

class Broken(nn.Module):
    def __init__(self, c, f, stride):
        raise RuntimeError("no such luck")

def Untyped(c, f, stride):
    return "a block"

LIST = [1]
'''


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's working folder, in which `mine.py` lies."""
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    from nas.rival_cost import block_cost

    for cached in (load, fingerprint, step, block_cost):
        cached.cache_clear()


def rival(name: str, *blocks: int) -> RivalCandidate:
    return RivalCandidate(f"mine:{name}", blocks or (1, 1, 1))


@pytest.mark.parametrize("limits", [Limits(params=20_000), Limits(mults=10**6, traffic=10**6)])
def test_a_copy_of_a_design_costs_the_same_and_gets_the_same_width(limits: Limits) -> None:
    found = solve_rival(rival("Separable", 1, 2), TASK, limits)
    ours = solve(Candidate(parse("DW+PW"), (1, 2)), TASK, limits)
    assert isinstance(found, RivalSized)
    assert isinstance(ours, Sized)
    assert found.width == ours.width
    for name in ("params", "mults", "adds", "traffic_bytes"):
        assert getattr(found.cost, name) == getattr(ours.cost, name), name
    assert found.module(seed=0)(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("name", ["Grouped", "Needy"])
def test_costs_are_what_torch_counts(name: str) -> None:
    found = rival(name).sized(TASK, 8)
    module = found.module(seed=0).eval()
    assert found.cost.params == sum(p.numel() for p in module.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, *TASK.input))
    assert 2 * found.cost.mults == counter.get_total_flops()


def test_the_widest_width_that_can_be_built_is_found() -> None:
    limits = Limits(params=30_000)
    found = solve_rival(rival("Grouped"), TASK, limits)
    assert isinstance(found, RivalSized)
    assert found.width % 8 == 0
    assert limits.allow(found.cost)
    assert not limits.allow(rival("Grouped").sized(TASK, found.width + 8).cost)
    narrower = solve_rival(rival("Grouped"), TASK, limits, at_most=found.width - 1)
    assert narrower.width == found.width - 8


def test_a_budget_below_the_narrowest_is_a_refusal() -> None:
    refusal = solve_rival(rival("Grouped"), TASK, Limits(params=100))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("width 8, the narrowest, has ")
    assert refusal.nearest.width == 8


def test_the_file_form_leads_back() -> None:
    found = rival("Grouped").sized(TASK, 16)
    data = json.loads(json.dumps(found.to_dict()))
    again = entry_from_dict(data)
    assert again == found
    assert again.key == found.key
    first, second = (entry.module(seed=3).state_dict() for entry in (found, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    ours = Candidate(parse("DW+PW"), (1, 1, 1)).sized(TASK, 8)
    assert entry_from_dict(ours.to_dict()) == ours
    with pytest.raises(DesignError, match="schema"):
        entry_from_dict({**data, "schema": 0})


def test_an_edited_block_is_another_block(tmp_path: Path) -> None:
    key = rival("Grouped").sized(TASK, 8).key
    (tmp_path / "mine.py").write_text(SOURCE + "# edited\n")
    fingerprint.cache_clear()
    assert rival("Grouped").sized(TASK, 8).key != key


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mine", "does not name a block; write package.module:Block"),
        ("mine:", "does not name a block"),
        ("nowhere.at.all:Block", "cannot import 'nowhere.at.all' .* No module named 'nowhere'"),
        ("mine:Groped", "has no class or function 'Groped'; its classes are Broken, Grouped"),
        ("mine:LIST", "has no class or function 'LIST'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(spec: str, says: str) -> None:
    with pytest.raises(RivalError, match=says):
        solve_rival(RivalCandidate(spec, (1, 1, 1)), TASK, Limits(params=10_000))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Broken", "cannot be built at .* width 128: .*RuntimeError: no such luck"),
        ("Untyped", "cannot be built at .* has no attribute 'eval'"),
        ("Narrow", r"Narrow\(4, 4, 1\) gives \(1, 4, 14, 14\) .* must give \(1, 4, 16, 16\)"),
    ],
)
def test_a_block_that_does_not_work_is_refused(name: str, says: str) -> None:
    with pytest.raises(RivalError, match=says):
        solve_rival(rival(name), TASK, Limits(params=10_000))
