"""Every figure of `analysis.cost` against the built torch modules, which know nothing of it.

Parameters: numel. Multiplications: half of what torch's flop counter says. Additions: a naive
evaluator that performs and counts them one by one. Traffic and memory: hooks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.conventions import LAYERS, TORCH
from analysis.cost import ITEMSIZE, cost, network_cost, part_cost
from spaces.design import Design, parse
from spaces.fixed import Classifier
from spaces.known import KNOWN
from spaces.layouts.fog import fog
from spaces.network import Network, Part, block
from spaces.operator import DesignError
from spaces.place import Place

torch.set_num_threads(1)

Case = tuple[Design, int, int, tuple[int, int], int]
"""Design, C, F, (H, W), stride."""


# ---- random designs and networks -----------------------------------------------------------------


def random_operator(rng: random.Random) -> str:
    symbol = rng.choice(["STD", "GC", "GC", "DW", "DW", "PW", "PW", "PWG", "PWG"])
    words = []
    if symbol in {"GC", "PWG"}:
        words.append(rng.choice(["1", "2", "2", "3", "4", "q=1", "q=2", "q=4"]))
    if symbol in {"STD", "GC", "DW"}:
        words += rng.choice([[], [], ["k=5"], ["d=2"], ["k=1"], ["k=5", "d=2"]])
    shuffle = rng.choice(["", "", "~"])
    return symbol + (f"({','.join(words)})" if words else "") + shuffle


def random_design(rng: random.Random) -> Design:
    text = "+".join(random_operator(rng) for _ in range(rng.randint(1, 4)))
    return parse(text + rng.choice(["", "", "@1/4", "@1/2", "@2", "@3/2"]))


def random_cases(seed: int, widths: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[Case]:
    """Without end: designs that can stand where they are put, C != F and odd maps among them."""
    rng = random.Random(seed)
    while True:
        design = random_design(rng)
        channels = rng.choice(widths)
        features = rng.choice([channels, channels, rng.choice(widths)])
        stride = rng.choice([1, 2])
        if design.why_invalid(channels, features, stride) is None:
            yield design, channels, features, (rng.choice(sides), rng.choice(sides)), stride


CASES = list(islice(random_cases(1, (8, 12, 16, 24, 36, 48), (7, 8, 13, 16)), 210))
TINY = list(islice(random_cases(2, (2, 3, 4, 6, 8), (1, 2, 3, 4)), 210))


def random_networks(seed: int, inputs: list[tuple[int, int, int]], width: int) -> Iterator[Network]:
    """Without end: the layout of the paper around random designs with inner activations."""
    rng = random.Random(seed)
    known = [(entry.design, entry.inner) for entry in KNOWN]
    while True:
        design, inner = rng.choice(known) if rng.random() < 0.2 else (random_design(rng), None)
        if inner is None:
            positions = range(len(design.operators))
            inner = tuple(i for i in positions if rng.random() < 0.3)
        try:
            yield fog(
                lambda *_, design=design: design,
                input=rng.choice(inputs),
                classes=rng.randint(2, 12),
                width=rng.choice([width, 2 * width]),
                blocks=tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 3))),
                inner=inner,
            )
        except DesignError:
            continue


NETWORKS = list(islice(random_networks(3, [(1, 8, 8), (3, 17, 12), (3, 32, 32)], 12), 20))
LARGE = list(islice(random_networks(4, [(3, 64, 64), (1, 65, 70), (3, 224, 224)], 12), 8))
TINY_NETWORKS = [
    *islice(random_networks(5, [(1, 5, 5), (2, 6, 3), (3, 1, 7)], 4), 20),
    *islice(random_networks(6, [(1, 64, 3)], 4), 2),
]


def bare(case: Case) -> nn.Sequential:
    design, channels, features, size, stride = case
    steps = design.places(channels, features, *size, stride)
    return nn.Sequential(*(step.item.module(step.place) for step in steps))


def numel(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def counted_mults(module: nn.Module, shape: tuple[int, int, int]) -> int:
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, *shape, device=next(module.parameters()).device))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def label(case: Case) -> str:
    design, channels, features, (height, width), stride = case
    return f"{design} {channels}->{features} on {height}x{width} stride {stride}"


# ---- params and mults ----------------------------------------------------------------------------


def test_the_random_designs_are_a_fair_sample() -> None:
    for cases in (CASES, TINY):
        assert len({label(case) for case in cases}) >= 200
        assert sum(case[0].inner is not None for case in cases) >= 20
        assert sum(case[1] != case[2] for case in cases) >= 40
        assert sum(case[4] == 2 for case in cases) >= 60
        assert sum("d=2" in str(case[0]) for case in cases) >= 20
        assert sum(not any(op.strides for op in case[0].operators) for case in cases) >= 20


def test_params_and_mults_of_designs_are_those_of_torch() -> None:
    for case in CASES:
        design, channels, features, size, stride = case
        found = cost(design, channels, features, size=size, stride=stride)
        with torch.device("meta"):
            module = bare(case)
        assert found.params == numel(module), label(case)
        assert found.mults == counted_mults(module, (channels, *size)), label(case)


def test_params_and_mults_of_networks_are_those_of_torch() -> None:
    for network in NETWORKS + LARGE:
        found = network_cost(network)
        with torch.device("meta"):
            module = network.module()
        assert found.params == numel(module)
        assert found.mults == counted_mults(module.eval(), network.input)


# ---- adds: a naive evaluator that performs them --------------------------------------------------


class Naive:
    """Evaluates a built network on nested lists of floats and counts each addition it performs.

    A padded zero is read, multiplied and added like any other input. Normalisation, activation,
    pooling, shuffle and the sum with the shortcut are left to torch and not counted.
    """

    def __init__(self) -> None:
        self.adds = 0
        self.mults = 0

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        match module:
            case nn.Sequential():
                for child in module:
                    x = self(child, x)
                return x
            case nn.Conv2d():
                return self.convolution(module, x)
            case nn.Linear():
                return self.linear(module, x)
            case _ if hasattr(module, "body"):
                y = self(module.body, x)
                if module.shortcut is not None:
                    y = y + module.shortcut(x)
                return self(module.after, y)
        return module(x)

    def dot(self, inputs: list[float], weights: list[float], bias: float | None = None) -> float:
        total = inputs[0] * weights[0]
        self.mults += 1
        for value, weight in zip(inputs[1:], weights[1:], strict=True):
            total += value * weight
            self.mults += 1
            self.adds += 1
        if bias is not None:
            total += bias
            self.adds += 1
        return total

    def convolution(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        rows, columns = layer.kernel_size
        down, right = layer.dilation
        top, left = layer.padding
        padded = nn.functional.pad(x, (left, left, top, top))[0]
        height = (padded.shape[1] - down * (rows - 1) - 1) // layer.stride[0] + 1
        width = (padded.shape[2] - right * (columns - 1) - 1) // layer.stride[1] + 1
        fan_in = layer.in_channels // layer.groups
        per_group = layer.out_channels // layer.groups
        out = torch.empty(1, layer.out_channels, height, width, dtype=x.dtype)
        weights = layer.weight.flatten(1).tolist()
        for i in range(height):
            for j in range(width):
                y, z = i * layer.stride[0], j * layer.stride[1]
                window = padded[
                    :,
                    y : y + down * (rows - 1) + 1 : down,
                    z : z + right * (columns - 1) + 1 : right,
                ]
                read = [
                    window[g * fan_in : (g + 1) * fan_in].flatten().tolist()
                    for g in range(layer.groups)
                ]
                for f in range(layer.out_channels):
                    out[0, f, i, j] = self.dot(read[f // per_group], weights[f])
        return out

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        weights, bias = layer.weight.tolist(), layer.bias.tolist()
        return torch.tensor(
            [[self.dot(x[0].tolist(), w, b) for w, b in zip(weights, bias, strict=True)]],
            dtype=x.dtype,
        )


@torch.no_grad()
def evaluated(module: nn.Module, shape: tuple[int, int, int]) -> Naive:
    """The counts of a naive evaluation, after checking that it computes what torch does."""
    module = module.double().eval()
    x = torch.randn(1, *shape, dtype=torch.float64)
    naive = Naive()
    assert torch.allclose(naive(module, x), module(x), atol=1e-10)
    return naive


def test_adds_of_designs_are_those_that_a_naive_loop_performs() -> None:
    for case in TINY:
        design, channels, features, size, stride = case
        found = cost(design, channels, features, size=size, stride=stride)
        naive = evaluated(bare(case), (channels, *size))
        assert (found.adds, found.mults) == (naive.adds, naive.mults), label(case)


def test_adds_of_networks_are_those_that_a_naive_loop_performs() -> None:
    for network in TINY_NETWORKS:
        found = network_cost(network)
        naive = evaluated(network.module(), network.input)
        assert (found.adds, found.mults) == (naive.adds, naive.mults)


# ---- traffic and memory: what hooks see ----------------------------------------------------------


RIDES_ALONG = (nn.BatchNorm2d, nn.ReLU, nn.ChannelShuffle)
"""Modules that work on their input in place: no traffic and no memory of their own."""


@dataclass
class Watched:
    """What passes through a network's modules, in numbers (not bytes)."""

    traffic: int = 0
    traffic_fused: int = 0
    peak: int = 0
    live: dict[str, int] = field(default_factory=dict)

    def hold(self, **maps: int) -> None:
        self.live |= maps
        self.peak = max(self.peak, sum(self.live.values()))

    def watch(self, part: nn.Module) -> None:
        """Register hooks on one part of a network: an operator's body, shortcut and whole."""
        part.register_forward_pre_hook(lambda _, given: self.enter(given[0]))
        for item in part.body:
            item.register_forward_hook(
                lambda item, given, out: self.operate(item, given[0], out, part.shortcut)
            )
        if part.shortcut is not None:
            part.shortcut.register_forward_hook(self.shortcut)
        part.register_forward_hook(self.leave)

    def enter(self, x: Tensor) -> None:
        self.live = {}
        self.hold(entry=x.numel())

    def operate(self, item: nn.Module, x: Tensor, out: Tensor, shortcut: nn.Module | None) -> None:
        if isinstance(item, RIDES_ALONG):
            return
        self.traffic += x.numel() + numel(item) + out.numel()
        self.hold(out=out.numel())
        if shortcut is None:
            self.live.pop("entry", None)
        self.live["current"] = self.live.pop("out")

    def shortcut(self, item: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        if out is not given[0]:
            self.hold(shortcut=out.numel())

    def leave(self, part: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        weights = sum(numel(item) for item in part.body if not isinstance(item, RIDES_ALONG))
        self.traffic_fused += given[0].numel() + weights + out.numel()


@torch.no_grad()
def watched(parts: nn.Module, shape: tuple[int, int, int]) -> Watched:
    seen = Watched()
    for part in parts:
        seen.watch(part)
    parts.eval()(torch.empty(1, *shape, device="meta"))
    return seen


def test_traffic_and_peak_of_networks_are_what_hooks_see() -> None:
    for network in NETWORKS + LARGE:
        found = network_cost(network)
        with torch.device("meta"):
            seen = watched(network.module(), network.input)
        assert found.traffic_bytes == 4 * seen.traffic
        assert found.traffic_bytes_fused == 4 * seen.traffic_fused
        assert found.peak_activation_bytes == 4 * seen.peak


def test_traffic_and_peak_of_designs_and_blocks_are_what_hooks_see() -> None:
    for case in CASES[::3]:
        design, channels, features, size, stride = case
        part = block("block", design, channels, features, *size, stride, inner=(0,))
        plain = Part("design", design.places(channels, features, *size, stride))
        for found, built in (
            (part_cost(part), part.module()),
            (cost(design, channels, features, size=size, stride=stride), plain.module()),
        ):
            seen = watched(nn.Sequential(built).to("meta"), (channels, *size))
            assert found.traffic_bytes == 4 * seen.traffic, label(case)
            assert found.traffic_bytes_fused == 4 * seen.traffic_fused, label(case)
            assert found.peak_activation_bytes == 4 * seen.peak, label(case)


def test_peak_by_hand() -> None:
    """PW: 4 -> 8 channels on 6 x 6. Block: input and output, then the widened shortcut too."""
    assert cost(parse("PW"), 4, 8, size=(6, 6)).peak_activation_bytes == 4 * 36 * (4 + 8)
    part = block("block", parse("PW"), 4, 8, 6, 6)
    assert part_cost(part).peak_activation_bytes == 4 * 36 * (4 + 8 + 8)
    same = block("block", parse("PW+PW@3"), 4, 4, 6, 6)
    assert part_cost(same).peak_activation_bytes == 4 * 36 * (4 + 12 + 4)


# ---- formulas, dtypes, conventions ---------------------------------------------------------------


def test_classifier_by_hand() -> None:
    """C = 6 channels of 4 x 5 pixels to 3 scores: mean, dense layer, bias."""
    lines = Classifier().lines(Place(6, 3, 4, 5), 4)
    found = {line.kind: (line.params, line.mults, line.adds) for line in lines}
    assert found == {"pool": (0, 6, 6 * 19), "linear": (18, 18, 15), "bias": (3, 0, 3)}
    assert sum(line.bytes for line in lines) == 4 * (6 * 20 + 18 + 3 + 3)


@pytest.mark.parametrize(
    ("text", "params", "mults"),
    [
        ("STD", 36_864, 37_748_736),
        ("DW+PW", 4_672, 4_784_128),
        ("GC(32)+PWG(2)", 3_200, 3_276_800),
        ("PWG(8)+DW+PWG(8)", 1_600, 1_638_400),
        ("PWG(4)+DW+PWG(4)@1/4", 656, 671_744),
    ],
)
def test_figures_of_the_theory_at_64_channels(text: str, params: int, mults: int) -> None:
    found = cost(parse(text), 64)
    assert (found.params, found.mults) == (params, mults)


def test_bytes_scale_with_the_dtype_and_counts_do_not() -> None:
    design = parse("PWG(4)+DW+PWG(4)@1/4")
    one = cost(design, 64, dtype="int8")
    for dtype, size in ITEMSIZE.items():
        found = cost(design, 64, dtype=dtype)
        assert found.dtype == dtype
        assert (found.params, found.mults, found.adds) == (one.params, one.mults, one.adds)
        assert found.traffic_bytes == size * one.traffic_bytes
        assert found.traffic_bytes_fused == size * one.traffic_bytes_fused
        assert found.peak_activation_bytes == size * one.peak_activation_bytes
        assert found.intensity == pytest.approx((one.mults + one.adds) / found.traffic_bytes)
        assert torch.empty(1, dtype=getattr(torch, dtype)).element_size() == size


def test_an_unknown_dtype_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'float8'.*float32"):
        cost(parse("DW+PW"), 64, dtype="float8")


def test_the_convention_decides_what_counts_and_is_named() -> None:
    part = block("block", parse("DW+PW"), 8, 8, 4, 4)
    layers = {**LAYERS, "norm": 1}
    with_norm = replace(TORCH, name="with norm", mults=layers, adds=layers)
    plain, more = part_cost(part), part_cost(part, convention=with_norm)
    assert (plain.convention, more.convention) == ("torch", "with norm")
    assert plain.to_dict()["convention"] == "torch"
    normalised = 2 * 8 * 16
    assert more.mults - plain.mults == more.adds - plain.adds == normalised
    assert more.params == plain.params


def test_a_design_that_cannot_stand_is_refused() -> None:
    with pytest.raises(DesignError, match="valid group numbers are 1, 2, 3, 6"):
        cost(parse("GC(4)+PW"), 6)
