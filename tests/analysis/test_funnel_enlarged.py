"""The funnel over other vocabularies, against a brute force that folds `reads` on a large map."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.choices import TARGETS
from analysis.equivalent import rank
from analysis.field import field
from analysis.funnel import VOCABULARY, funnel
from analysis.survivors import survivors
from analysis.verdicts import Verdicts
from nas.cli import app
from spaces.design import Design, parse
from spaces.operator import DesignError
from spaces.symbols import every_symbol, operator_of, symbol
from spaces.vocabulary import vocabulary

SIDE = 21
"""Rows and columns of a map on which three stencils of 5 x 5 stay inside."""


class Brute:
    """One pass of the funnel by trying every choice of group numbers, with folds of its own."""

    def __init__(self, result, stage):
        self.channels, self.target = result.channels, result.target
        self.stage, self.inner = stage.name, stage.reach.inner
        self.vocabulary, self.max_length = result.vocabulary, result.max_length
        self.rules = [step.rule for step in stage.steps[1:]]
        self.rule_of = cache(self.rule_of)
        self.paths = cache(self.paths)

    def members(self, text):
        operator = operator_of(text)
        if not operator.is_open:
            return [operator]
        numbers = [g for g in range(2, self.channels + 1) if self.channels % g == 0]
        words = text.partition("(")[2].rstrip(")")
        return [type(operator).read([w for w in (f"g={g}", words) if w]) for g in numbers]

    def paths(self, word):
        """(design, measure of each prefix, whether the target is hit) of every choice."""
        found = []
        for operators in product(*map(self.members, word)):
            design = Design(operators, self.inner)
            if design.why_invalid(self.channels) is None:
                found.append((design, *self.measures(design)))
        return found

    def measures(self, design):
        steps = design.places(self.channels, None, SIDE, SIDE)
        ends = [i for i, step in enumerate(steps) if step.position is not None]
        cuts = [self.fold(steps[: end + 1]) for end in ends]
        measure = self.size if self.target == "size" else self.inside
        done = self.size(cuts[-1]) == (3, 3, self.channels)
        if self.target == "covers":
            done = self.inside(cuts[-1]) == 9 * self.channels
        return [measure(cut) for cut in cuts], done

    def fold(self, steps):
        features = steps[-1].place.features
        needed = np.zeros((features, features, SIDE, SIDE), bool)
        needed[np.arange(features), np.arange(features), SIDE // 2, SIDE // 2] = True
        for step in reversed(steps):
            needed = step.item.reads(needed, step.place)
        return needed

    def inside(self, read):
        middle = slice(SIDE // 2 - 1, SIDE // 2 + 2)
        return int(read[:, :, middle, middle].sum(axis=(1, 2, 3)).min())

    def size(self, read):
        middle = slice(SIDE // 2 - 1, SIDE // 2 + 2)
        inside = read[:, :, middle, middle].sum(axis=(1, 2, 3))
        least = min(range(len(read)), key=lambda f: (read[f].sum(), inside[f], f))
        one = read[least]
        columns, rows, channels = one.any((0, 1)), one.any((0, 2)), one.any((1, 2))
        return (int(columns.sum()), int(rows.sum()), int(channels.sum()))

    def stalls(self, measures):
        start = 1 if self.target == "covers" else (1, 1, 1)
        required = measures[:-1] if self.inner else measures
        before = [start, *required]
        return {i for i, (a, b) in enumerate(zip(before, required, strict=False), 1) if not a < b}

    def good(self, word):
        """The designs that hit the target by growth."""
        return [d for d, measures, done in self.paths(word) if done and not self.stalls(measures)]

    def cost(self, word):
        return min(
            sum(s.item.params(s.place) for s in d.places(self.channels)) for d in self.good(word)
        )

    def spatial(self, word):
        return next((i for i, s in enumerate(word) if operator_of(s).spatial), len(word))

    def step(self, word):
        return any(operator_of(s).kind == "step" for s in word)

    def removes(self, rule, word):
        n, before = len(word), self.rules.index(rule)
        if rule == "repeats":
            spans = [(i, m) for i in range(n) for m in range(1, (n - i) // 2 + 1)]
            return any(word[i : i + m] == word[i + m : i + 2 * m] for i, m in spans)
        if rule == "ends":
            return n == 1 or not all(operator_of(word[i]).resizes for i in (0, -1))
        if rule in ("field", "covers"):
            return not any(done for _, _, done in self.paths(word))
        if rule == "growth":
            return not self.good(word)
        if rule == "subsequence":
            parts = [part for m in range(1, n) for part in combinations(word, m)]
            hit = any(done for part in parts for _, _, done in self.paths(part))
            return hit and not self.step(word)
        if rule == "palindrome":
            return word != word[::-1]
        if rule == "depthwise":
            others = product(*[("GC", "DW") if s == "GC" else (s,) for s in word])
            known = [o for o in others if o != word and set(o) <= set(self.vocabulary)]
            return any(self.rule_of(o, before) is None for o in known)
        assert rule == "mirror"
        image = word[::-1]
        if image == word or self.step(word) or self.rule_of(image, before) is not None:
            return False
        order = self.vocabulary.index
        keys = [(self.spatial(w), self.cost(w), [*map(order, w)]) for w in (image, word)]
        return keys[0] < keys[1]

    def rule_of(self, word, count=None):
        return next((r for r in self.rules[:count] if self.removes(r, word)), None)

    def verify(self, word, verdict):
        """The evidence of the rules that look at fields."""
        evidence = verdict.rejection.evidence
        if verdict.rule == "covers" and evidence["inside"] is not None:
            assert evidence["inside"] == max(m[-1] for _, m, _ in self.paths(word))
            assert f"{evidence['inside']:,} of the {evidence['window']:,}" in verdict.reason
        elif verdict.rule == "field" and evidence["largest"] is not None:
            assert evidence["largest"] in {m[-1] for _, m, _ in self.paths(word)}
        elif verdict.rule == "growth":
            done = [self.stalls(m) for _, m, hit in self.paths(word) if hit]
            assert all(stalled & set(evidence["operators"]) for stalled in done)
            assert all(f"the {i}" in verdict.reason for i in evidence["operators"])
        elif verdict.rule == "subsequence":
            part = evidence["subsequence"]
            rest = iter(word)
            assert len(part) < len(word)
            assert all(s in rest for s in part)
            assert any(done for _, _, done in self.paths(part))


SPACES = [
    (8, 3, ("LEAN(s=5)", "PW", "DW")),
    (12, 3, ("UNR", "SIC", "TPS(2)", "PWG")),
    (8, 3, ("LEAN(s=1x3)", "LEAN(g=1,s=3x1)", "LEAN", "PWG")),
    (12, 4, ("SHIFT", "STD", "PW")),
    (4, 3, ("RD", "IRD", "CRD", "DW", "PW")),
    (8, 3, ("GC", "DW", "LINEARMIX", "TPS(3,k=1)")),
    (8, 3, ("STRUCT(c=1/2,n=2)", "STRUCT(q=1,c=1,n=2)", "COMPOSITE(fig1a)", "CIRC(k=1)", "GC")),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("channels", "max_length", "names"), SPACES)
def test_every_verdict_is_that_of_the_brute_force(channels, max_length, names, target):
    result = funnel(channels, vocabulary=names, max_length=max_length, target=target)
    for stage in result.stages:
        brute = Brute(result, stage)
        removed = Counter()
        for length in range(1, max_length + 1):
            for word in product(result.vocabulary, repeat=length):
                rule = brute.rule_of(word)
                verdict = result.why(stage.family(word))
                assert (verdict.kept, verdict.rule) == (rule is None, rule), verdict
                assert (word in stage.survivors) == (rule is None)
                removed[rule] += 1
                if rule is not None:
                    brute.verify(word, verdict)
        assert [step.removed for step in stage.steps[1:]] == [removed[r] for r in brute.rules]


@pytest.mark.parametrize("target", TARGETS)
def test_the_best_group_numbers(target):
    """No cheaper choice that passes has rank F/4."""
    result = funnel(8, vocabulary=("LEAN(s=5)", "PWG", "GC", "DW"), max_length=3, target=target)
    listed = survivors(result)
    assert [one.params for one in listed] == sorted(one.params for one in listed)
    assert {one.family for one in listed} == {
        stage.family(word) for stage in result.stages for word in stage.survivors
    }
    for one in listed:
        family = parse(one.family)
        stage = result.plain if family.inner is None else result.bottleneck
        brute = Brute(result, stage)
        costs = {
            str(d): sum(s.item.params(s.place) for s in d.places(8))
            for d in brute.good(tuple(map(str, family.operators)))
        }
        assert costs[one.design] == one.params == 8 * one.weights_per_output
        assert one.rank == rank(parse(one.design), 8)
        able = [cost for text, cost in costs.items() if rank(parse(text), 8) >= 2]
        assert one.params == (min(able) if able else min(costs.values()))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("off", [["repeats"], ["growth"], ["ends", "mirror"], ["subsequence"]])
def test_rules_can_be_switched_off(off, target):
    names = ("LEAN(s=5)", "DW", "PW")
    result = funnel(8, vocabulary=names, max_length=3, target=target, off=off)
    for stage in result.stages:
        brute = Brute(result, stage)
        words = [w for n in (1, 2, 3) for w in product(names, repeat=n)]
        assert set(stage.survivors) == {w for w in words if brute.rule_of(w) is None}


@pytest.mark.parametrize("target", TARGETS)
def test_without_the_target(target):
    rule = {"size": "field", "covers": "covers"}[target]
    names = ("LEAN(s=5)", "DW", "PW", "SHIFT")
    result = funnel(12, vocabulary=names, max_length=3, target=target, off=[rule, "subsequence"])
    brute = Brute(result, result.plain)
    for word in result.plain.survivors:
        assert any(not brute.stalls(measures) for _, measures, _ in brute.paths(word))


# ---- the algebra of fields ---------------------------------------------------------------------


@pytest.mark.parametrize("inner", [None, "1/4"])
def test_composed_fields_are_exact(inner):
    """Random choices of random compositions of the whole vocabulary."""
    random = np.random.default_rng(3)
    names, channels = every_symbol(), 16
    ratio = parse(f"PW+PW@{inner}").inner if inner else None
    engine = Verdicts(channels, 3, names, 4, "covers", ratio)
    compared = 0
    for _ in range(150):
        word = tuple(random.choice(names, random.integers(2, 5)))
        resizing = [i for i, s in enumerate(word) if operator_of(s).resizes]
        if (inner and len(resizing) < 2) or engine.why_invalid(word):
            continue
        paths = list(engine.paths(word))
        path = paths[random.integers(len(paths))]
        design = Design(tuple(choice.operator for choice in path.chosen), ratio)
        exact = field(design, channels)
        seen = engine.fields.seen(path.fields[-1])
        assert engine.fields.covers(path.fields[-1]) == exact.complete
        if exact.volume != "all":
            assert (seen.size, seen.volume) == (exact.size, exact.volume), design
            assert [step.size for step in exact.steps] == [
                engine.fields.seen(cut).size for cut in path.fields
            ]
        compared += 1
    assert compared > 60


LINEAR = [
    example for kind in vocabulary().values() if kind.kind != "step" for example in kind.examples()
]


@pytest.mark.parametrize("operator", LINEAR, ids=str)
def test_the_rank_is_that_of_the_module(operator):
    """At the centre pixel of a map that holds the window; the module has weights of its own."""
    import torch

    design = Design((operator,)).turned()
    channels = next((c for c in (16, 8, 12) if design.why_invalid(c) is None), None)
    assert channels is not None
    rows, columns = operator.window
    (step,) = design.places(channels, None, rows + 2, columns + 2)
    torch.manual_seed(1)
    module = step.item.module(step.place).double().eval()
    image = torch.zeros(1, channels, rows + 2, columns + 2, dtype=torch.float64)
    centre = ((rows + 2) // 2, (columns + 2) // 2)
    matrix = torch.autograd.functional.jacobian(lambda x: module(x)[0, :, *centre], image)
    found = int(np.linalg.matrix_rank(matrix.detach().reshape(channels, -1).numpy()))
    assert rank(design, channels) == found


def test_ranks():
    assert rank(parse("STRUCT(c=9/16,n=1)"), 64) == 36
    assert rank(parse("PW+DW+PW@1/4"), 64) == 16
    assert rank(parse("RD+PW"), 64) is None


# ---- symbols -----------------------------------------------------------------------------------


def test_the_whole_vocabulary():
    names = every_symbol()
    assert {operator_of(name).symbol for name in names} == set(vocabulary())
    lean = {"LEAN", "LEAN(s=5)", "LEAN(s=1x3)", "LEAN(s=3x1)", "LEAN(g=1,s=5)"}
    assert lean | {"STD", "GC", "DW", "PW", "PWG", "SHIFT", "TPS(2)", "UNR", "SIC"} <= set(names)
    assert all(symbol(name) == name for name in names)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("LEAN(g=16)", "has a group number, which the funnel chooses"),
        ("STRUCT(g=2)", "has a group number, which the funnel chooses"),
        ("GC(*)", "has a group number, which the funnel chooses"),
        ("LEAN(s=3)", "alternates along a design"),
        ("DW+PW", "a vocabulary holds single operators"),
        ("LEEN", "unknown operator 'LEEN'; did you mean LEAN"),
    ],
)
def test_what_is_no_symbol(text, sentence):
    with pytest.raises(DesignError, match=sentence.replace("(", r"\(")):
        symbol(text)


def test_bad_questions():
    with pytest.raises(DesignError, match="no target is called 'both'; valid are size, covers"):
        funnel(8, target="both")
    with pytest.raises(DesignError, match="lower the maximal length"):
        funnel(8, vocabulary="all", max_length=6)
    with pytest.raises(DesignError, match=r"SIC is not in the vocabulary PW, LEAN\(s=5\)"):
        funnel(8, vocabulary=("PW", "LEAN(s=5)"), max_length=2).why("SIC+PW")


# ---- the whole vocabulary ----------------------------------------------------------------------


def test_two_incomplete_lean_operators_complete_each_other():
    result = funnel(16, vocabulary=("LEAN", "LEAN(s=5)", "DW"), max_length=2, target="covers")
    verdict = result.why("LEAN+LEAN(s=5)")
    assert not result.why("LEAN").kept
    assert verdict.rule != "covers"


def test_the_papers_designs_under_the_other_target():
    """All that they read is boxes, so the window is covered by the same four."""
    assert set(funnel(16, max_length=4).designs) <= set(
        funnel(16, max_length=4, target="covers").designs
    )
    assert funnel(16).target == "size"
    assert set(funnel(16).vocabulary) == set(VOCABULARY)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kept"), [("covers", (5394, 299)), ("size", (473, 63))])
def test_all_operators_of_length_four(target, kept):
    start = time.process_time()
    result = funnel(64, vocabulary="all", target=target)
    assert time.process_time() - start < 30  # under 10 s on a quiet machine
    assert tuple(len(stage.survivors) for stage in result.stages) == kept
    listed = survivors(result)
    assert len(listed) == sum(kept)
    shown = {one.family for one in listed if not one.missed}
    assert {"DW+PW", "GC+PWG", "PW+DW+PW@1/4", "PWG+DW+PWG@1/4"} <= shown
    for one in listed[::40]:
        exact = field(parse(one.design), 64)
        assert exact.complete if target == "covers" else exact.equals_standard
    random = np.random.default_rng(0)
    for stage in result.stages:
        for _ in range(300):
            word = tuple(random.choice(result.vocabulary, random.integers(1, 5)))
            verdict = result.why(stage.family(word))
            assert verdict.kept == (word in stage.survivors)
            assert verdict.kept or verdict.reason


def test_the_command():
    arguments = [
        "funnel",
        "--channels",
        "8",
        "--vocabulary",
        "LEAN(s=5),PW,DW",
        "--max-length",
        "3",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert (data["target"], data["other_target"]["target"]) == ("covers", "size")
    for each in (data, data["other_target"]):
        assert {one["family"] for one in each["survivors"]} >= set(each["designs"])
        keys = {"design", "family", "params", "weights_per_output", "rank"}
        assert all(keys <= one.keys() for one in each["survivors"])
    text = CliRunner().invoke(app, [*arguments, "--target", "size"])
    assert "target size:" in text.stdout
    assert "target covers:" not in text.stdout
    why = CliRunner().invoke(app, [*arguments, "--why", "LEAN(s=5)+PW"])
    assert "removed by covers" in why.stdout


def test_the_page(tmp_path):
    from benchmarks.funnel import main

    page = tmp_path / "page.md"
    asked = ["--channels", "8", "--max-length", "2", "--out", str(tmp_path), "--page", str(page)]
    assert main(asked) == 0
    stored = json.loads((tmp_path / "funnel.json").read_text())
    assert [each["target"] for each in stored["targets"]] == ["covers", "size"]
    text = page.read_text()
    assert "## Target `covers`" in text
    assert "**`DW+PW`**" in text
