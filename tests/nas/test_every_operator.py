"""Every operator of the vocabulary is searched, sized by a budget, and trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_trainer import FAKE
from torch.nn.functional import cross_entropy

from nas import ladder
from nas.budget import Refusal, solve, why_not_wider
from nas.candidates import Candidate, Sized, Task
from nas.compositions import FOG, compositions
from nas.datasets import load
from nas.limits import Limits
from nas.run import settings
from nas.schedule import BRIEF
from nas.search import search
from nas.space import Space, space_for
from nas.train import train
from spaces.design import Design, parse
from spaces.operator import DesignError, Operator
from spaces.vocabulary import vocabulary

torch.set_num_threads(1)

EXAMPLES = [example for kind in vocabulary().values() for example in kind.examples()]
FIRST = [kind.examples()[0] for kind in vocabulary().values()]
TASK = Task((1, 16, 16), 10)
LIMITS = Limits(params=6_000)


def design_of(operator: Operator) -> Design:
    """The operator alone, or followed by PW where it keeps the width."""
    return Design((operator,)) if operator.resizes else parse(f"{operator}+PW")


def smallest(operator: Operator) -> Sized:
    """At the first width at which one block, or one in each of two stages, can stand."""
    for design in (design_of(operator), Design((operator,)), parse(f"{operator}+PW")):
        for blocks in ((1, 1), (1,)):
            candidate = Candidate(design, blocks)
            try:
                return candidate.sized(TASK, max(8, ladder.first_width(candidate)))
            except DesignError:
                continue
    raise AssertionError(f"{operator} stands nowhere")


@pytest.mark.parametrize("operator", EXAMPLES, ids=str)
def test_every_parameter_has_a_gradient_after_five_steps(operator: Operator) -> None:
    network = smallest(operator).module(seed=0)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, *TASK.input, generator=generator)
    y = torch.arange(32) % TASK.classes
    for _ in range(6):
        optimiser.zero_grad()
        cross_entropy(network(x), y).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad.any(), f"{name} gets no gradient"


@pytest.mark.parametrize("operator", FIRST, ids=str)
def test_an_epoch_on_hard_digits_is_learnt_from(operator: Operator) -> None:
    data = load("hard-digits")
    outcome = train(smallest(operator).module(seed=0), data, replace(BRIEF, epochs=1), seed=0)
    assert outcome.failure is None
    assert outcome.loss is not None
    assert outcome.loss < 2.5  # log(10) = 2.3 is that of guessing


@pytest.mark.parametrize("operator", EXAMPLES, ids=str)
def test_the_widest_network_of_a_budget_is_found(operator: Operator) -> None:
    """Against every width up to four times as wide, one by one."""
    design = smallest(operator).candidate.design
    candidate = Candidate(design, smallest(operator).candidate.blocks)
    found = solve(candidate, TASK, LIMITS, allow_incomplete=True)
    fitting = []
    top = 200 if isinstance(found, Refusal) else 4 * found.width
    for width in range(ladder.NARROWEST, top):
        try:
            if LIMITS.allow(candidate.sized(TASK, width).cost):
                fitting.append(width)
        except DesignError:
            continue
    if isinstance(found, Refusal):
        assert not fitting
        return
    assert found.width == fitting[-1]
    assert why_not_wider(found, LIMITS, allow_incomplete=True) is not None


# ---- the space ---------------------------------------------------------------------------------


def space(*words: str, incomplete: bool = False) -> Space:
    return space_for(TASK, Limits(params=50_000), 3, vocabulary=words, incomplete=incomplete)


def test_all_operators_are_composed() -> None:
    found = compositions(["all"])
    assert set(FOG) <= {str(design) for design in found}
    composed = {symbol for design in found for symbol in design.composition}
    dense_or_never_complete = {"STD", "SHIFT"}
    assert composed >= set(vocabulary()) - dense_or_never_complete
    larger = compositions(["all"], incomplete=True)
    assert {"SHIFT+PW", "LEAN(s=5)"} <= {str(design) for design in larger}


@pytest.mark.parametrize(
    ("words", "some", "symbols"),
    [
        (("LEAN", "SIC", "DW", "PW"), {"DW+PW", "SIC", "LEAN+PW"}, {"LEAN", "SIC", "DW", "PW"}),
        (("RD", "PW"), {"RD+PW"}, {"RD", "PW"}),
        (("UNR(b=1)",), {"UNR(b=1)"}, {"UNR"}),
        (("GC", "DW", "PW", "PWG"), set(FOG), {"GC", "DW", "PW", "PWG"}),
    ],
)
def test_a_vocabulary_is_composed(
    words: tuple[str, ...], some: set[str], symbols: set[str]
) -> None:
    found = space(*words).compositions
    assert some <= set(map(str, found))
    assert {symbol for design in found for symbol in design.composition} <= symbols


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("LEEN",), "did you mean LEAN"),
        (("RD",), "nothing can be composed of RD"),
        (("LEAN(g=4)",), "has a group number"),
    ],
)
def test_a_vocabulary_that_makes_nothing_is_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(DesignError, match=says):
        space(*words)


def test_numbers_that_no_theorem_gives_have_genes() -> None:
    asked = space("LEAN", "PW")
    genes = {name: choices[0] for name, choices in asked.genes.items()}
    genes |= {"composition": "LEAN+PW", "first": -1}
    decoded = {
        scheme: str(asked.decode(genes | {"scheme": scheme}).design) for scheme in asked.schemes
    }
    assert decoded == {
        "optimal": "LEAN(q=1)+PW",
        "numbers": "LEAN(g=8)+PW",
        "size": "LEAN(q=8)+PW",
    }


def test_every_composition_of_all_fits_a_budget_and_is_complete() -> None:
    asked = space("all")
    first = {name: choices[0] for name, choices in asked.genes.items()}
    for design in asked.compositions:
        candidate = asked.decode(first | {"composition": str(design)})
        found = solve(candidate, TASK, asked.limits)
        assert isinstance(found, Sized), f"{candidate}: {found}"
        assert found.why_incomplete() is None
        assert asked.limits.allow(found.cost)


def test_a_search_over_all_operators_ranks_them(tmp_path: Path) -> None:
    """With a trainer that invents accuracies; the default vocabulary stays as it was."""
    asked = settings(
        data="hard-digits", max_params=20_000, vocabulary=("all",), trials=6, finalists=1, seeds=1
    )
    result = search(asked, tmp_path / "run", trainer=FAKE)
    searched = {row.design for row in result.rows if not row.known_as}
    assert any(not {"GC", "DW", "PW", "PWG"}.issuperset(parse(d).composition) for d in searched)
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["settings"]["vocabulary"] == ["all"]
    assert settings().vocabulary == ()
    assert tuple(map(str, space_for(TASK, LIMITS, 3).compositions)) == FOG
