"""Exported networks of every operator of the vocabulary: bit-equal, at any width, torch only."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kernels.choice import using
from nas.candidates import Candidate, Sized, Task
from nas.exports import export
from spaces.design import Design, parse
from spaces.network import block
from spaces.operator import DesignError
from spaces.vocabulary import vocabulary

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """An exported file holds the definitions, so that only plain torch agrees in every bit."""
    with using("torch"):
        yield


TASKS = (Task((1, 9, 8), 3), Task((3, 8, 8), 4))
WIDTHS = (16, 12, 18, 24, 64)
NAMED = (
    "RD+PW",
    "IRD+PW",
    "CRD(h=1/2)+PW",
    "LINEARMIX+PW",
    "CIRC+PWG(4)",
    "DW+SIC",
    "SIC+SIC@1/2",
    "SIC+RD",
    "DW+TPS(2,k=1)+PW",
    "SHIFT+PW",
    "LEAN(g=4,s=3)+LEAN(g=4,s=3)",
    "LEAN(g=4,s=3)+GC(4)+LEAN(g=2,s=3)",
    "LEAN(q=1)+TPS(2)",
    "LEAN(g=4)+TPS(2)+PW@1/2",
    "STRUCT(c=1/2,n=2,g=2)+PW",
    "PW+STRUCT(c=1/2,n=2)+PW@1/2",
    "COMPOSITE(fig1c)+UNR(b=2)@2",
    "RD",
)


def stands(design: Design, rng: random.Random, inner: tuple[int, ...] = ()) -> Sized | None:
    """A network of the design at the first width where it stands, one stage if two cannot."""
    for blocks in ((1, 1), (1,)):
        for width in WIDTHS:
            sized = Candidate(design, blocks, inner).sized(rng.choice(TASKS), width)
            try:
                sized.cost  # noqa: B018
            except DesignError:
                continue
            return sized
    return None


def winners() -> Iterator[Sized]:
    """Every example that stands alone or with PW behind it, named mixtures and random ones."""
    rng = random.Random(3)
    examples = [example for kind in vocabulary().values() for example in kind.examples()]
    designs = [Design((example,)) for example in examples]
    designs = [d if stands(d, rng) else parse(f"{d}+PW") for d in designs] + [*map(parse, NAMED)]
    for _ in range(25):
        chosen = [rng.choice(examples) for _ in range(rng.randint(2, 3))]
        plain = frozenset(i for i in range(2) if rng.random() < 0.3)
        designs.append(Design(tuple(chosen), None, plain))
    for design in designs:
        inner = tuple(i for i in range(len(design.operators)) if rng.random() < 0.2)
        if (sized := stands(design, rng, inner)) is not None:
            yield sized


WINNERS = list(winners())
IDS = [f"{sized.candidate} w{sized.width}" for sized in WINNERS]
each_winner = pytest.mark.parametrize("sized", WINNERS, ids=IDS)


def loaded(path: Path) -> Any:
    spec = spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_operator_is_there() -> None:
    seen = {symbol for sized in WINNERS for symbol in sized.candidate.design.composition}
    assert seen == set(vocabulary())


@each_winner
def test_the_network_is_bit_equal_to_the_searched_one(sized: Sized, tmp_path: Path) -> None:
    ours = sized.module(seed=1)
    torch.manual_seed(2)
    for name, tensor in ours.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand_like(tensor)
            tensor.copy_(noise + 0.5 if name.endswith("running_var") else tensor + noise / 8)
    python, weights = export(sized, ours.state_dict(), tmp_path)
    theirs = loaded(python).load(weights)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    channels, height, width = sized.task.input
    for size in ((height, width), (height + 3, width + 2)):
        x = torch.randn(2, channels, *size)
        for mode in (True, False):
            a, b = ours.train(mode)(x), theirs.train(mode)(x)
            assert torch.equal(a, b)
    ours.zero_grad()
    a.square().sum().backward()
    b.square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def searched(design: Design, channels: int, features: int, stride: int) -> nn.Module | None:
    try:
        return block("b", design, channels, features, 9, 9, stride).module()
    except DesignError:
        return None


@each_winner
def test_the_block_stands_where_the_design_does_and_computes_the_same(
    sized: Sized, tmp_path: Path
) -> None:
    design = sized.candidate.design
    plain = Candidate(design, sized.candidate.blocks).sized(sized.task, sized.width)
    module = loaded(export(plain, None, tmp_path)[0])
    found = 0
    for c in (1, 4, 6, 7, 9, 16, 24, sized.width):
        for f in sorted({c, 2 * c, 20}):
            stride = 1 + (c + f) % 2
            ours = searched(design, c, f, stride)
            assert module.fits(c, f) == (ours is not None), (c, f)
            if ours is not None:
                theirs = module.Block(c, f, stride)
                theirs.load_state_dict(ours.state_dict())
                x = torch.randn(1, c, 9, 9)
                assert torch.equal(ours.eval()(x), theirs.eval()(x)), (c, f)
                found += 1
    assert found
    with pytest.raises(ValueError, match="nearest valid are"):
        module.Block(0, 16)


def test_the_files_need_torch_only_and_are_in_good_style(tmp_path: Path) -> None:
    for sized in WINNERS:
        text = export(sized, None, tmp_path)[0].read_text()
        imported = set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE))
        own = {sized_name for sized_name in imported if "_w" in sized_name}
        assert imported - own - {"torch"} <= set(sys.stdlib_module_names)
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("text", ["RD+PW", "LEAN(q=1)+TPS(2)"])
def test_the_file_runs_alone(text: str, tmp_path: Path) -> None:
    sized = next(sized for sized in WINNERS if str(sized.candidate.design) == text)
    python = export(sized, None, tmp_path)[0]
    ran = subprocess.run(
        [sys.executable, "-I", str(python)], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert str(sized.cost.params) in ran.stdout
