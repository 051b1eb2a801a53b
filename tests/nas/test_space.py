"""Each genome stands for one candidate, and the space knows all of them."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.funnel import funnel
from nas.budget import Refusal, solve
from nas.candidates import Candidate, Sized, Task
from nas.limits import Limits
from nas.space import COMPOSITIONS, Choice, Genes, Space, space_for
from spaces.design import parse
from spaces.operator import DesignError

TASK = Task((1, 16, 16), 10)
LIMITS = Limits(params=50_000)
SPACE = space_for(TASK, LIMITS, 3)


def genomes(space: Space) -> st.SearchStrategy[dict[str, Choice]]:
    return st.fixed_dictionaries({n: st.sampled_from(c) for n, c in space.genes.items()})


def random_genes(space: Space, rng: random.Random) -> Genes:
    return {name: rng.choice(choices) for name, choices in space.genes.items()}


def test_the_default_compositions_are_the_survivors_of_the_funnel() -> None:
    assert {*funnel(64).designs} | {"PWG+DW+PWG"} == {*COMPOSITIONS}


def test_genes_are_plain_choices() -> None:
    for choices in SPACE.genes.values():
        assert len(set(choices)) == len(choices) > 1
        assert all(type(choice) in (str, int) for choice in choices)


@settings(deadline=None, max_examples=60)
@given(genomes(SPACE))
def test_every_genome_decodes_always_to_the_same_candidate(genes: dict[str, Choice]) -> None:
    decoded = SPACE.decode(genes)
    assert decoded == space_for(TASK, LIMITS, 3).decode(genes)
    assert parse(str(decoded.design)) == decoded.design
    assert decoded.blocks == (genes["blocks1"], genes["blocks2"], genes["blocks3"])
    assert SPACE.decode(SPACE.canonical(genes)) == decoded
    assert SPACE.canonical(SPACE.canonical(genes)) == SPACE.canonical(genes)


@pytest.mark.parametrize(
    ("fixed", "irrelevant"),
    [
        ({"composition": "DW+PW"}, {"scheme", "first", "last", "ratio"}),
        ({"composition": "PW+DW+PW@1/4"}, {"scheme", "first", "last"}),
        ({"composition": "GC+PWG", "scheme": "optimal"}, {"first", "last", "ratio"}),
        ({"composition": "GC+PWG", "scheme": "numbers"}, {"ratio"}),
        ({"composition": "PWG+DW+PWG@1/4", "scheme": "size"}, set()),
    ],
)
def test_irrelevant_genes_change_nothing(fixed: Genes, irrelevant: set[str]) -> None:
    rng = random.Random(0)
    without_effect = set(SPACE.genes) - set(fixed)
    for _ in range(5):
        genes = {**random_genes(SPACE, rng), **fixed}
        for name, choices in SPACE.genes.items():
            decoded = {SPACE.decode({**genes, name: choice}) for choice in choices}
            if len(decoded) > 1:
                without_effect.discard(name)
    assert without_effect == irrelevant


def test_genes_mean_what_they_say() -> None:
    genes = {name: choices[0] for name, choices in SPACE.genes.items()}
    genes |= {"composition": "PWG+DW+PWG@1/4", "kernel": 5, "ratio": "1/2", "scheme": "optimal"}
    assert str(SPACE.decode(genes).design) == "PWG(*)+DW(k=5)+PWG(*)@1/2"
    genes |= {"composition": "GC+PWG", "kernel": 3, "scheme": "numbers", "first": 0, "last": 0}
    m, n = (op.g for op in SPACE.decode(genes).design.operators)
    assert (m, n) == (32, 2)
    moved = SPACE.decode({**genes, "first": -1, "last": -1}).design
    assert str(moved) == "GC(16)+PWG(2)"
    sizes = SPACE.decode({**genes, "scheme": "size"}).design
    q1, q2 = (op.q for op in sizes.operators)
    assert q1 * q2 >= 64 * 4


def test_a_genome_that_is_none_is_refused() -> None:
    genes = random_genes(SPACE, random.Random(0))
    with pytest.raises(ValueError, match=r"gene kernel is 4; valid are \[3, 5\]"):
        SPACE.decode({**genes, "kernel": 4})
    with pytest.raises(ValueError, match="gene ratio is nothing"):
        SPACE.decode({name: gene for name, gene in genes.items() if name != "ratio"})


@pytest.mark.parametrize(
    ("limits", "least"),
    [(LIMITS, 0.75), (Limits(params=10**6), 0.75), (Limits(mults=10**6, traffic=10**6), 0.65)],
)
def test_most_random_genomes_are_feasible(limits: Limits, least: float) -> None:
    rng = random.Random(0)
    space = space_for(TASK, limits, 3)
    keys: list[str] = []
    for _ in range(100):
        found = solve(space.decode(random_genes(space, rng)), TASK, limits)
        if isinstance(found, Sized):
            keys.append(found.key)
    assert len(keys) >= 100 * least
    assert len(set(keys)) >= 0.8 * len(keys)


def small_space() -> Space:
    space = space_for(TASK, LIMITS, 3, exclude=["PWG", "PW+DW+PW@1/4"], include=["GC+PW", "STD"])
    return replace(space, first=(0, 1), last=(-1, 0), kernels=(3,), depths=(1, 2))


def test_all_candidates_are_enumerated_once() -> None:
    space = small_space()
    listed = list(space.candidates())
    assert len(listed) == len(set(listed))
    rng = random.Random(0)
    assert {space.decode(random_genes(space, rng)) for _ in range(600)} == {*listed}
    blocks = 2**3
    assert len(listed) == blocks * (1 + 1 + 1 + 2 + 2)  # DW+PW, STD, GC+PW: *, g and q, last


def test_the_smallest_hold_each_composition_once_a_ratio() -> None:
    smallest = list(SPACE.smallest())
    assert len(smallest) == len(set(smallest)) == 3 + 2 * len(SPACE.ratios)
    assert all(candidate.blocks == (1, 1, 1) for candidate in smallest)


# ---- include and exclude -------------------------------------------------------------------


def test_a_composition_or_a_design_is_included() -> None:
    space = space_for(
        TASK, LIMITS, 3, include=["GC+PW", "PWG(4)+DW+PWG(4)@1/4", "PW+DW+PW@6", "DW+PW"]
    )
    names = space.genes["composition"]
    assert names == (*COMPOSITIONS, "GC+PW", "PWG(4)+DW+PWG(4)@1/4")
    assert space.genes["ratio"] == ("1/8", "1/4", "1/2", "2", "6")
    genes = {name: choices[-1] for name, choices in space.genes.items()}
    as_given = space.decode({**genes, "composition": "PWG(4)+DW+PWG(4)@1/4"})
    assert as_given == Candidate(parse("PWG(4)+DW+PWG(4)@1/4"), (3, 3, 3))
    assert space.decode({**genes, "composition": "PW+DW+PW@1/4"}).design.inner == Fraction(6)


def test_operators_and_compositions_are_excluded() -> None:
    def left(*exclude: str) -> tuple[Choice, ...]:
        return space_for(TASK, LIMITS, 3, exclude=exclude).genes["composition"]

    assert left("PWG") == left("pwgconv") == ("DW+PW", "PW+DW+PW@1/4")
    assert left("PWG+DW+PWG") == tuple(c for c in COMPOSITIONS if c != "PWG+DW+PWG")
    assert left("PWG+DW+PWG@1/2") == tuple(c for c in COMPOSITIONS if c != "PWG+DW+PWG@1/4")
    assert left("STD") == COMPOSITIONS


@pytest.mark.parametrize(
    ("include", "exclude", "says"),
    [
        ([], ["DW", "GC"], "nothing is left to search"),
        ([], ["GC+PW"], "cannot exclude 'GC\\+PW': the space holds DW\\+PW, "),
        ([], ["XYZ"], "unknown operator 'XYZ'"),
        (["DW"], [], "cannot include DW: .* no operator that can map"),
        (["PW+PWG"], [], "cannot include PW\\+PWG: .* misses taps"),
        (["GC(4"], [], "cannot read"),
    ],
)
def test_what_makes_no_space_is_refused(include: list[str], exclude: list[str], says: str) -> None:
    with pytest.raises(DesignError, match=says):
        space_for(TASK, LIMITS, 3, include=include, exclude=exclude)


def test_even_a_hopeless_budget_leaves_genomes_that_decode() -> None:
    limits = Limits(params=100)
    space = space_for(TASK, limits, 3)
    rng = random.Random(0)
    for _ in range(20):
        assert isinstance(solve(space.decode(random_genes(space, rng)), TASK, limits), Refusal)


@pytest.mark.parametrize("ratio", ["1/3", "2/3", "1/12", "3/5"])
def test_an_included_ratio_may_be_any(ratio: str) -> None:
    """Each genome of the widened space still decodes."""
    space = space_for(TASK, Limits(params=50_000), 3, include=[f"PWG+DW+PWG@{ratio}"])
    assert any(str(c.design).endswith(f"@{ratio}") for c in space.candidates())
