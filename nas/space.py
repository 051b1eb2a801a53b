"""The space of a search: one flat genome, and the candidate that each genome stands for.

Width is no gene (`nas.budget.solve`). A gene that the others make irrelevant (the bottleneck of
DW+PW, the group numbers of a design without open ones) does not change the candidate.

Constant group numbers are powers of two around the theorem's optimum (`analysis.theorems`) at a
reference width C0. The product of all numbers decides whether a block sees everything, so the
genes move along it and away from it: with M0 ... N0 optimal at C0,

    M = M0 2^first,   N = N0 2^(last - first),   first of any sign, last <= 0,

has M N = C0 2^last and is complete from the width C0 2^last on. A constant size q = C/M sees
everything up to a width, so its C0 lies above the last stage.

Where another operator than a grouped convolution stands, no theorem gives an optimum: all open
numbers are one, g or q = 16 2^first as in LeanConvNets; "optimal" is the cheapest, q = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product

from nas.budget import Refusal, solve
from nas.candidates import Candidate, Sized, Task
from nas.compositions import FOG as COMPOSITIONS
from nas.compositions import compositions
from nas.groups import (
    constant_sizes,
    is_composition,
    numbered,
    opened,
    shifted_optimum,
    starred,
    unsettled,
    with_groups,
)
from nas.limits import Limits
from nas.selection import includable, without
from spaces.design import Design, parse
from spaces.operator import DesignError
from spaces.symbols import with_kernel

Choice = str | int
Genes = Mapping[str, Choice]

RATIOS = ("1/8", "1/4", "1/2", "2")
KERNELS = (3, 5)
DEPTHS = (1, 2, 3)
FIRST = (-2, -1, 0, 1, 2)
LAST = (-2, -1, 0)

OPTIMAL, NUMBERS, SIZE = "optimal", "numbers", "size"
SCHEMES = (OPTIMAL, NUMBERS, SIZE)

CENTRE = 16
"""The group number and the group size of LeanConvNets, section IV (g = 16, g = c/16)."""

SHARES = ("1", "1/2", "1/4", "1/8")
"""Shares of the limits where costs are objectives too: what is best depends on the size."""

SMALLEST = 16
"""Reference width where the limits afford no wider network."""


@dataclass(frozen=True)
class Space:
    """What can be tried for a task within limits.

    compositions: families (`GC+PWG`, `PW+DW+PW@1/4`, whose ratio and kernel are genes) and
    designs with numbers, which stand for themselves. stages: of the layout; each has a gene for
    its number of blocks. shares: of the limits that a network may use; a gene where there are any.
    """

    task: Task
    limits: Limits
    stages: int
    compositions: tuple[Design, ...] = tuple(map(parse, COMPOSITIONS))
    schemes: tuple[str, ...] = SCHEMES
    first: tuple[int, ...] = FIRST
    last: tuple[int, ...] = LAST
    kernels: tuple[int, ...] = KERNELS
    ratios: tuple[str, ...] = RATIOS
    depths: tuple[int, ...] = DEPTHS
    shares: tuple[str, ...] = ()
    _references: dict[tuple[Design, tuple[int, ...]], tuple[int, int]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def genes(self) -> dict[str, tuple[Choice, ...]]:
        """The choices of each gene, in a fixed order."""
        return {
            "composition": tuple(map(str, self.compositions)),
            "scheme": self.schemes,
            "first": self.first,
            "last": self.last,
            "kernel": self.kernels,
            "ratio": self.ratios,
            **dict.fromkeys(self._stages, self.depths),
            **({"share": self.shares} if self.shares else {}),
        }

    @property
    def _stages(self) -> tuple[str, ...]:
        return tuple(f"blocks{stage}" for stage in range(1, self.stages + 1))

    def canonical(self, genes: Genes) -> dict[str, Choice]:
        """The genome with its first choice for each gene that is irrelevant here.

        Raises ValueError for a missing gene and for a value that is no choice.
        """
        for name, choices in self.genes.items():
            if name not in genes or genes[name] not in choices:
                found = repr(genes[name]) if name in genes else "nothing"
                raise ValueError(f"gene {name} is {found}; valid are {list(choices)}")
        relevant = self._relevant(parse(str(genes["composition"])), str(genes["scheme"]))
        return {
            name: genes[name] if name in relevant else choices[0]
            for name, choices in self.genes.items()
        }

    def _relevant(self, design: Design, scheme: str) -> set[str]:
        names = {"composition", "share", *self._stages}
        if unsettled(design):
            names |= {"scheme"} if scheme == OPTIMAL else {"scheme", "first"}
        if not is_composition(design):
            return names
        if any(operator.spatial for operator in design.operators):
            names.add("kernel")
        if design.inner is not None:
            names.add("ratio")
        if unsettled(design):
            return names
        if open_ones := opened(design):
            names.add("scheme")
            if scheme != OPTIMAL:
                names |= {"last"} if len(open_ones) == 1 else {"first", "last"}
        return names

    def decode(self, genes: Genes) -> Candidate:
        """The candidate of a genome; each genome has one. Raises ValueError as `canonical`."""
        chosen = self.canonical(genes)
        candidate = self._decoded(chosen)
        return replace(candidate, share=Fraction(chosen["share"])) if self.shares else candidate

    def _decoded(self, chosen: Mapping[str, Choice]) -> Candidate:
        design = parse(str(chosen["composition"]))
        blocks = tuple(int(chosen[name]) for name in self._stages)
        if not is_composition(design):
            return Candidate(self._settled(design, chosen), blocks)
        inner = None if design.inner is None else Fraction(chosen["ratio"])
        operators = tuple(
            with_kernel(op, int(chosen["kernel"])) if op.spatial else op for op in design.operators
        )
        if unsettled(design):
            family = self._settled(Design(operators, inner, design.unshuffled), chosen)
            return Candidate(family, blocks)
        family = Design(operators, inner, design.unshuffled)
        if not opened(family):
            return Candidate(family, blocks)
        if chosen["scheme"] == OPTIMAL:
            return Candidate(starred(family), blocks)
        low, high = self._reference(family, blocks)
        at = low if chosen["scheme"] == NUMBERS else high
        groups = shifted_optimum(family, at, int(chosen["first"]), int(chosen["last"]))
        if chosen["scheme"] == NUMBERS:
            return Candidate(with_groups(family, groups), blocks)
        return Candidate(constant_sizes(family, at, groups), blocks)

    @staticmethod
    def _settled(design: Design, chosen: Mapping[str, Choice]) -> Design:
        """The design with the numbers that no theorem gives."""
        number = int(CENTRE * 2.0 ** int(chosen["first"]))
        match chosen["scheme"]:
            case "numbers":
                return numbered(design, g=number)
            case "size":
                return numbered(design, q=number)
        return numbered(design, q=1)

    def candidates(self) -> Iterator[Candidate]:
        """Every candidate of the space once, in the order of the genes."""
        seen: set[Candidate] = set()
        tried: set[tuple[Choice, ...]] = set()
        names = list(self.genes)
        for values in product(*self.genes.values()):
            genes = self.canonical(dict(zip(names, values, strict=True)))
            if (key := tuple(genes.values())) in tried:
                continue
            tried.add(key)
            if (candidate := self.decode(genes)) not in seen:
                seen.add(candidate)
                yield candidate

    def smallest(self) -> Iterator[Candidate]:
        """The cheapest of each composition and ratio: optimal numbers, fewest blocks.

        If none of them fits the limits, the budget is impossible.
        """
        genes = {name: choices[0] for name, choices in self.genes.items()}
        genes |= dict.fromkeys(self._stages, min(self.depths)) | {"kernel": min(self.kernels)}
        pairs = product(self.genes["composition"], self.ratios)
        decoded = (self.decode(genes | {"composition": c, "ratio": r}) for c, r in pairs)
        yield from dict.fromkeys(decoded)

    def _reference(self, family: Design, blocks: tuple[int, ...]) -> tuple[int, int]:
        """The widths at which constant numbers and constant sizes are optimal: powers of two, times
        what else the inner width needs to be whole.

        The first is the largest whose numbers give a complete network within the limits. The
        second is what the last stage has in the widest network of optimal numbers, rounded up:
        no complete network of the same operators is wider.
        """
        if (family, blocks) not in self._references:
            limits = self.limits.expected
            widest = solve(Candidate(starred(family), blocks), self.task, limits)
            width = SMALLEST if isinstance(widest, Refusal) else max(SMALLEST, widest.width)
            unit = math.lcm(SMALLEST, 1 if family.inner is None else family.inner.denominator)
            low = unit * 2 ** max(0, (width // unit).bit_length() - 1)
            while low > unit:
                numbers = with_groups(family, shifted_optimum(family, low))
                if isinstance(solve(Candidate(numbers, blocks), self.task, limits), Sized):
                    break
                low //= 2
            high = unit * 2 ** (-(-width // unit) - 1).bit_length() * 2 ** (self.stages - 1)
            self._references[family, blocks] = low, high
        return self._references[family, blocks]


def space_for(
    task: Task,
    limits: Limits,
    stages: int,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    vocabulary: Iterable[str] = (),
    incomplete: bool = False,
    shares: Iterable[str] = (),
) -> Space:
    """The default space with designs added, and operators or compositions removed.

    vocabulary, incomplete: as `nas.compositions.compositions`; without it the paper's four.
    shares: as `SHARES`.
    include: compositions (`GC+PW`, `PW+DW+PW@6`: its ratio becomes a choice for all) or designs
    with numbers. exclude: an operator, which removes every composition that has it, or a
    composition or design as the space lists it (a bottleneck with any ratio). Raises DesignError
    for what does not read, cannot stand or is not there, and if nothing is left.
    """
    ratios = list(RATIOS)
    words = tuple(vocabulary)
    kept = [*(compositions(words, incomplete=incomplete) if words else map(parse, COMPOSITIONS))]
    for text in include:
        design = includable(parse(text), stages)
        if is_composition(design) and design.inner is not None:
            ratios.append(str(design.inner))
            design = replace(design, inner=Fraction(1, 4))
        kept.append(design)
    kept = list(dict.fromkeys(kept))
    for text in exclude:
        kept = without(kept, text)
    if not kept:
        raise DesignError("nothing is left to search: exclude less or include more")
    return Space(
        task,
        limits,
        stages,
        tuple(kept),
        ratios=tuple(dict.fromkeys(ratios)),
        shares=tuple(shares),
    )
