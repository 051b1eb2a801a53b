"""The operator contract, over every operator of the vocabulary and all that it declares.

Nothing here names an operator: a new file in `spaces/operators/` is tested by being there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from analysis.field import support
from analysis.graph import dependency_graph, reachable
from spaces.design import Design, Step, from_json, from_slug, parse
from spaces.grouped import divisors
from spaces.modules import Weighted
from spaces.operator import DesignError, Operator
from spaces.place import Place
from spaces.vocabulary import operator_class, vocabulary

EXAMPLES = [example for kind in vocabulary().values() for example in kind.examples()]
WIDTHS = ((8, 8), (8, 12), (12, 8), (16, 16), (4, 4), (24, 24), (64, 64), (128, 128))
MULTIPLIED = ("conv", "linear")
"""The kinds of ledger lines whose multiplications torch's counter sees."""
ADDED = ("conv", "linear", "shortcut")
"""The kinds of ledger lines whose additions the count below sees."""


def places(operator: Operator) -> Iterator[Place]:
    """Valid places: C != F where allowed, strides where taken, maps with an interior pixel and
    maps that are smaller than the stencil."""
    widths = [w for w in WIDTHS if operator.why_invalid(Place(*w, 4, 3)) is None]
    for channels, features in islice(widths, 3):
        boxes = operator.reach(Place(channels, features, 4, 3))
        rows, columns = max(b.rows for b in boxes), max(b.columns for b in boxes)
        for stride in (1, 2) if operator.strides else (1,):
            for height, width in ((rows + 1, columns + 2), (3, 2)):
                place = Place(channels, features, height, width, stride)
                if operator.why_invalid(place) is None:
                    yield place


CASES = [
    pytest.param(op, place, id=f"{op}-{place.channels}-{place.features}-{place.height}x"
                 f"{place.width}-s{place.stride}")
    for op in EXAMPLES
    for place in places(op)
]  # fmt: skip
everywhere = pytest.mark.parametrize(("operator", "place"), CASES)
every_example = pytest.mark.parametrize("operator", EXAMPLES, ids=str)


def masks(place: Place, count: int = 1) -> np.ndarray:
    """Random sets of outputs (count, F, H', W'), sparse enough to tell apart what they read."""
    shape = (count, place.features, place.out_height, place.out_width)
    return np.random.default_rng(0).random(shape) < 0.1


def each_output(place: Place) -> np.ndarray:
    """Every output by itself: (F H' W', F, H', W')."""
    shape = (place.features, place.out_height, place.out_width)
    return np.eye(place.out_elements, dtype=bool).reshape(-1, *shape)


class AdditionCounter(TorchDispatchMode):
    """Counts additions by walking over every tap of every convolution, and every sum or
    difference."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default:
            weight = args[1]
            for _ in range(out.numel()):
                taps = 0
                for _ in range(weight[0].numel()):
                    taps += 1
                self.total += taps - 1
        elif function in (torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor):
            self.total += out.numel()
        elif function is torch.ops.aten.index_add.default:
            self.total += args[3].numel()
        return out


def additions(module: nn.Module, images: int, place: Place) -> int:
    """What a loop counts on a batch of so many images, by the definitions of the operations."""
    for layer in module.modules():
        if isinstance(layer, Weighted):
            layer.function = getattr(layer.function, "definition", layer.function)
    with torch.no_grad(), AdditionCounter() as counter:
        module(torch.zeros(images, place.channels, place.height, place.width))
    return counter.total


# ---- one operator ------------------------------------------------------------------------------


@every_example
def test_an_example_can_stand_somewhere(operator: Operator) -> None:
    assert any(True for _ in places(operator)), f"{operator} fits none of {WIDTHS}"


@everywhere
def test_the_module_maps_the_place_and_has_no_bias(operator: Operator, place: Place) -> None:
    module = operator.module(place).eval()
    x = torch.zeros(2, place.channels, place.height, place.width)
    y = module(x)
    assert y.shape == (2, place.features, place.out_height, place.out_width)
    if operator.kind != "step":
        assert not y.any()


@everywhere
def test_params_are_those_of_the_module(operator: Operator, place: Place) -> None:
    assert operator.params(place) == sum(p.numel() for p in operator.module(place).parameters())


@everywhere
def test_mults_are_those_that_torch_counts(operator: Operator, place: Place) -> None:
    module = operator.module(place).eval()
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, place.channels, place.height, place.width))
    lines = operator.lines(place, 4)
    mults = sum(line.mults for line in lines if line.kind in MULTIPLIED)
    assert mults == counter.get_total_flops() / 2


@everywhere
def test_adds_are_those_of_a_loop(operator: Operator, place: Place) -> None:
    """Of one image: what is done to the weights alone does not grow with the batch."""
    module = operator.module(place).eval()
    adds = sum(line.adds for line in operator.lines(place, 4) if line.kind in ADDED)
    assert adds == additions(module, 2, place) - additions(module, 1, place)


@everywhere
def test_the_ledger_adds_up(operator: Operator, place: Place) -> None:
    lines = operator.lines(place, 2)
    assert sum(line.params for line in lines) == operator.params(place)
    assert sum(line.mults for line in lines) == operator.mults(place)
    assert sum(line.adds for line in lines) == operator.adds(place)
    assert sum(line.bytes for line in lines) == operator.traffic(place, 2)


@everywhere
def test_connections_follow_from_reads(operator: Operator, place: Place) -> None:
    assert operator.connections(place) == Operator.connections(operator, place)


@everywhere
def test_reads_are_the_gradients(operator: Operator, place: Place, dependency: Any) -> None:
    shape = (place.channels, place.height, place.width)
    gradients = dependency(operator.module(place), shape)
    reads = operator.reads(each_output(place), place)
    assert np.array_equal(reads, gradients.reshape(-1, *shape))


@everywhere
def test_reads_are_a_union_homomorphism(operator: Operator, place: Place) -> None:
    needed = masks(place, 6)
    apart = operator.reads(needed, place)
    assert np.array_equal(operator.reads(needed.any(axis=0), place), apart.any(axis=0))
    assert np.array_equal(operator.reads(needed.reshape(2, 3, *needed.shape[1:]), place),
                          apart.reshape(2, 3, *apart.shape[1:]))  # fmt: skip
    assert not operator.reads(np.zeros_like(needed), place).any()


@everywhere
def test_reads_stay_within_reach(operator: Operator, place: Place) -> None:
    boxes = operator.reach(place)
    reads = operator.reads(each_output(place), place)
    volume = sum(box.rows * box.columns * box.fan_in for box in boxes)
    assert reads.sum(axis=(1, 2, 3)).max() <= volume
    assert reads.any(axis=(2, 3)).sum(axis=1).max() <= sum(box.fan_in for box in boxes)
    assert reads.any(axis=(1, 3)).sum(axis=1).max() <= max(box.rows for box in boxes)
    assert reads.any(axis=(1, 2)).sum(axis=1).max() <= max(box.columns for box in boxes)


@everywhere
def test_carried_permutations_are_symmetries(operator: Operator, place: Place) -> None:
    needed = masks(place, 4)
    reads = operator.reads(needed, place)
    for permutation in permutations(place.features):
        carried = operator.carried(permutation, place)
        if carried is not None:
            assert sorted(carried) == list(range(place.channels))
            turned = operator.reads(needed[:, permutation], place)
            assert np.array_equal(turned, reads[:, carried])


def permutations(features: int) -> Iterator[np.ndarray]:
    """The rotations inside blocks that the field tries, and some at random."""
    rng = np.random.default_rng(0)
    for block in divisors(features):
        for turn in divisors(block):
            yield np.roll(np.arange(features).reshape(-1, block), turn, axis=1).ravel()
    for _ in range(5):
        yield rng.permutation(features)


@everywhere
def test_the_canonical_operator_is_the_same_function(operator: Operator, place: Place) -> None:
    canonical = operator.canonical(place)
    assert canonical.canonical(place) == canonical
    assert canonical.params(place) == operator.params(place)
    assert canonical.mults(place) == operator.mults(place)
    assert canonical.adds(place) == operator.adds(place)
    needed = masks(place, 4)
    assert np.array_equal(canonical.reads(needed, place), operator.reads(needed, place))


# ---- notation and refusals ---------------------------------------------------------------------


@every_example
def test_the_string_the_slug_and_the_json_go_round(operator: Operator) -> None:
    for design in (Design((operator,)), Design((operator, operator), None, frozenset({0}))):
        assert parse(str(design)) == design
        assert from_slug(design.slug) == design
        assert re.fullmatch(r"[\w.,=~%!@&-]+", design.slug)
        assert from_json(design.to_json()) == design


@every_example
def test_every_spelling_reads(operator: Operator) -> None:
    for name in (operator.symbol, *operator.spellings):
        assert operator_class(name) is type(operator)
        assert operator_class(name.upper()) is type(operator)


@every_example
def test_a_reason_is_given_exactly_where_the_design_cannot_stand(operator: Operator) -> None:
    for channels, features in product((1, 2, 3, 4, 6, 7, 8, 12, 16), repeat=2):
        reason = operator.why_invalid(Place(channels, features, 4, 3))
        design = Design((operator,))
        if reason is None:
            assert design.places(channels, features, 4, 3)
            assert design.why_invalid(channels, features) is None
        else:
            assert len(reason.split()) >= 4
            with pytest.raises(DesignError) as refusal:
                design.places(channels, features, 4, 3)
            assert str(refusal.value) == design.why_invalid(channels, features)


@pytest.mark.parametrize("kind", vocabulary().values(), ids=lambda kind: kind.symbol)
def test_an_operator_without_its_numbers_says_so(kind: type[Operator]) -> None:
    assert kind.examples()
    assert all(isinstance(example, kind) and not example.is_open for example in kind.examples())
    bare = parse(kind.symbol)
    if bare.is_family:
        assert bare.why_invalid(8) is not None


# ---- two operators -----------------------------------------------------------------------------


def pairs() -> list[Design]:
    """Every ordered pair of operators, at the first and at the last example of each, with the
    shuffle between them and without."""
    found: dict[Design, None] = {}
    for first, second in product(vocabulary().values(), repeat=2):
        for end in (0, -1):
            operators = (first.examples()[end], second.examples()[end])
            found |= dict.fromkeys(Design(operators, None, frozenset(s)) for s in ((), (0,)))
    return list(found)


def standing(design: Design, size: tuple[int, int], stride: int) -> tuple[Step, ...]:
    """The design at the first widths that it accepts, C != F before C = F."""
    for channels, features in sorted(WIDTHS, key=lambda pair: pair[0] == pair[1]):
        if design.why_invalid(channels, features, stride) is None:
            return design.places(channels, features, *size, stride)
    raise AssertionError(f"{design} fits none of {WIDTHS}")


def fold(steps: Sequence[Step]) -> np.ndarray:
    """What each output of the design reads: (F H' W', C, H, W)."""
    needed = each_output(steps[-1].place)
    for item, place, _ in reversed(steps):
        needed = item.reads(needed, place)
    return needed


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("design", pairs(), ids=str)
def test_the_field_of_a_pair_is_the_gradients_of_the_stack(
    design: Design, stride: int, dependency: Any
) -> None:
    size = (4, 5)
    steps = standing(design, size, stride)
    channels, features = steps[0].place.channels, steps[-1].place.features
    stack = nn.Sequential(*(step.item.module(step.place) for step in steps))
    gradients = dependency(stack, (channels, *size))
    assert np.array_equal(fold(steps), gradients.reshape(-1, channels, *size))
    centre = gradients.shape[1] // 2, gradients.shape[2] // 2
    for output in range(features):
        seen = support(design, channels, features, output=output, size=size, stride=stride)
        assert np.array_equal(seen.inputs, gradients[output, *centre])


@pytest.mark.parametrize("design", pairs(), ids=str)
def test_the_field_of_a_pair_is_what_the_graph_reaches(design: Design) -> None:
    size = (3, 4)
    steps = standing(design, size, 1)
    channels, features = steps[0].place.channels, steps[-1].place.features
    graph = dependency_graph(design, channels, features, size=size)
    fields = fold(steps).reshape(features, *size, channels, *size)
    for output in product((0, features // 2, features - 1), (0, 1), (0, 3)):
        field = {tuple(at) for at in np.argwhere(fields[output]).tolist()}
        assert reachable(graph, output) == field
