"""The funnel against the paper, and every one of its reasons against an independent referee."""

import ast
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import funnel_checker
import pytest
from funnel_checker import Referee

from analysis.field import field
from analysis.funnel import VOCABULARY, funnel
from analysis.reach import Reach, member
from analysis.rules import StrictGrowth
from spaces.design import Design, parse
from spaces.enumerate import compositions
from spaces.operator import Box, DesignError
from spaces.operators.pointwise_group import PointwiseGroup

PAPER = ("DW+PW", "GC+PWG", "PW+DW+PW@1/4", "PWG+DW+PWG@1/4")


def kept(result, stage):
    return [step.kept for step in result.steps if step.stage == stage]


def referees(result):
    for stage in result.stages:
        yield (
            stage,
            Referee(
                result.channels,
                stage.name,
                kernel=result.kernel,
                vocabulary=result.vocabulary,
                max_length=result.max_length,
                off=result.off,
            ),
        )


def check_every_reason(result):
    """Both passes, all compositions: the verdict of `why`, and the counts."""
    for stage, referee in referees(result):
        removed = dict.fromkeys(referee.rules, 0)
        for word, rule in referee.everything():
            verdict = result.why(stage.family(word))
            assert (verdict.kept, verdict.rule) == (rule is None, rule), verdict
            if rule is None:
                assert word in stage.survivors
                continue
            removed[rule] += 1
            rejection = verdict.rejection
            assert rejection.rule == rule
            assert rejection.reason == verdict.reason
            referee.verify(word, rule, verdict.reason, rejection.evidence)
        counts = {step.rule: step.removed for step in stage.steps[1:]}
        assert counts == removed


def check_survivors(result):
    """Both passes: the referee keeps the same compositions and counts the same."""
    for stage, referee in referees(result):
        rules = [rule for _, rule in referee.everything()]
        assert [step.removed for step in stage.steps[1:]] == [
            rules.count(rule) for rule in referee.rules
        ]
        assert stage.survivors == tuple(w for w, rule in referee.everything() if rule is None)


# ---- the paper's numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [48, 64, 128, 256])
def test_the_papers_funnel(channels):
    result = funnel(channels)
    assert kept(result, "plain") == [5460, 1108, 86, 16, 7, 5, 3]
    assert kept(result, "bottleneck")[:2] == [5460, 1108]
    assert kept(result, "bottleneck")[-3:] == [26, 4, 2]
    assert result.designs == PAPER
    for step, before in zip(result.steps[1:], result.steps, strict=False):
        assert step.removed == (before.kept - step.kept if before.stage == step.stage else 0)


def test_the_survivors_of_each_pass():
    """PWG+DW+PWG survives both; the union shows it once, as the bottleneck."""
    result = funnel(64)
    assert list(map(result.plain.family, result.plain.survivors)) == [
        "GC+PWG",
        "DW+PW",
        "PWG+DW+PWG",
    ]
    assert list(map(result.bottleneck.family, result.bottleneck.survivors)) == [
        "PW+DW+PW@1/4",
        "PWG+DW+PWG@1/4",
    ]
    assert result.why("PWG+DW+PWG").kept
    assert result.why("PWG+DW+PWG@1/4").kept


def test_a_prime_width():
    result = funnel(53)
    assert kept(result, "plain")[:4] == [5460, 1108, 82, 4]
    assert result.designs == ("DW+PW",)


def test_a_width_without_a_bottleneck_says_so():
    result = funnel(53)
    assert [step for step in result.steps if step.stage == "bottleneck"] == [
        ("bottleneck", "compositions", 5460, 0),
        ("bottleneck", "inner-width", 0, 5460),
    ]
    verdict = result.why("PW+DW+PW@1/4")
    assert (verdict.kept, verdict.rule) == (False, "inner-width")
    assert verdict.reason == (
        "the inner width 1/4 x 53 is not a whole number; valid widths are multiples of 4"
    )


def test_a_small_vocabulary():
    result = funnel(64, vocabulary=("DW", "PW", "PWG"), max_length=4)
    assert kept(result, "plain")[:4] == [120, 39, 22, 7]


@pytest.mark.parametrize("channels", [48, 64, 128, 256])
def test_the_bottleneck_without_palindromes(channels):
    """The mixed PW+DW+PWG would stay, and it is cheaper than PW+DW+PW."""
    designs = funnel(channels, off=["palindrome"]).designs
    assert {"PW+DW+PWG@1/4", "PWG+DW+PW@1/4", *PAPER[2:]} <= set(designs)


# ---- every reason, and every other space -------------------------------------------------------


def test_the_referee_stands_alone():
    tree = ast.parse(Path(funnel_checker.__file__).read_text())
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [n.module for n in imported if isinstance(n, ast.ImportFrom)] == ["itertools"]
    assert len(imported) == 1


def test_every_reason_at_16_channels():
    check_every_reason(funnel(16))


@pytest.mark.parametrize(
    ("text", "lie"),
    [
        ("DW+PW+DW+PW", {"pattern": ("DW", "PW"), "start": 1, "end": 3}),
        ("DW+PWG", {"largest": (3, 3, 16), "target": (3, 3, 16)}),
        ("PW+DW+PW", {"operators": (2,), "field": (3, 3, 16)}),
        ("PW+DW+PW", {"operators": (3,), "field": (1, 1, 16)}),
        ("PWG+DW+PW", {"subsequence": ("PW", "DW"), "groups": (1, 16)}),
        ("PWG+DW+PW", {"subsequence": ("DW", "PWG"), "groups": (16, 2)}),
        ("GC+PW", {"replacement": ("DW", "PWG")}),
        ("PW+DW", {"mirror": ("PW", "DW")}),
        ("DW+PW@1/4", {"operator": 2}),
        ("PW+DW+PWG@1/4", {"operators": (2, 2)}),
    ],
)
def test_the_referee_refuses_false_evidence(text, lie):
    result = funnel(16)
    verdict = result.why(text)
    _, referee = list(referees(result))["@" in text]
    word = parse(text).composition
    truth = verdict.rejection.evidence
    assert truth.keys() == lie.keys()
    referee.verify(word, verdict.rule, verdict.reason, truth)
    with pytest.raises(AssertionError):
        referee.verify(word, verdict.rule, verdict.reason, lie)
    with pytest.raises(AssertionError):
        referee.verify(word, "another rule", verdict.reason, truth)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [48, 64])
def test_every_reason_at_the_papers_widths(channels):
    check_every_reason(funnel(channels))


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 8, 9, 12, 20, 24])
def test_other_widths(channels):
    result = funnel(channels, max_length=4)
    if channels % 4:
        stage, referee = next(referees(result))
        rules = [rule for _, rule in referee.everything()]
        assert stage.survivors == tuple(w for w, rule in referee.everything() if rule is None)
        assert [s.removed for s in stage.steps[1:]] == [rules.count(r) for r in referee.rules]
    else:
        check_every_reason(result)


@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("max_length", [1, 3, 5])
def test_other_kernel_sizes_and_lengths(kernel, max_length):
    check_every_reason(funnel(8, kernel=kernel, max_length=max_length))


@pytest.mark.parametrize(
    "vocabulary",
    [
        ("STD", "GC", "DW", "PW", "PWG"),
        ("PWG", "PW", "DW", "GC"),
        ("GC", "PW", "PWG"),
        ("DW", "PWG"),
        ("STD",),
        ("PW",),
    ],
)
def test_other_vocabularies(vocabulary):
    check_every_reason(funnel(12, vocabulary=vocabulary, max_length=4))


RULES = ["repeats", "field", "growth", "subsequence", "depthwise", "mirror", "ends", "palindrome"]


@pytest.mark.parametrize(
    "off", [*([rule] for rule in RULES), ["repeats", "field"], ["growth", "ends"], RULES]
)
def test_rules_can_be_switched_off(off):
    result = funnel(8, max_length=4, off=off)
    assert not {step.rule for step in result.steps} & set(off)
    check_every_reason(result)


@pytest.mark.slow
def test_a_longer_space():
    check_survivors(funnel(8, max_length=7))


def test_a_vocabulary_without_dw_keeps_its_gc():
    assert "GC+PW" in funnel(64, vocabulary=("GC", "PW", "PWG")).designs


# ---- the dynamic programme ---------------------------------------------------------------------


@pytest.mark.parametrize("inner", [None, parse("PW+PW@1/4").inner])
def test_reach_equals_the_exact_field(inner):
    """Over every choice of group numbers of every composition of up to three operators."""
    channels = 16
    reach = Reach(channels, 3, inner)
    compared = 0
    for composition in compositions(VOCABULARY, 3):
        if reach.why_invalid(composition) is not None:
            continue
        numbers = [(2, 4, 8, 16) if s in ("GC", "PWG") else (None,) for s in composition]
        sizes = set()
        for groups in product(*numbers):
            operators = tuple(member(s, 3, g) for s, g in zip(composition, groups, strict=True))
            design = Design(operators, inner)
            if design.why_invalid(channels) is None:
                sizes.add(field(design, channels).size)
                compared += 1
        assert reach.layers(composition)[-1] == sizes
    assert compared > 200


def test_an_operator_that_promises_too_much_is_found(monkeypatch):
    def too_much(self, place):
        return (Box(1, 1, place.channels),)

    monkeypatch.setattr(PointwiseGroup, "reach", too_much)
    with pytest.raises(RuntimeError, match=r"was to reach \(3, 3, 16\), but its exact field is"):
        funnel(16)


def test_the_cheapest_group_numbers():
    """GC(32)+PWG(2) with 3,200 parameters at 64 channels; bottleneck (4, 4) with 656."""
    plain, bottleneck = (stage.reach for stage in funnel(64).stages)
    assert plain.cheapest(("GC", "PWG"))[1:] == ((32, 2), 3200)
    assert bottleneck.cheapest(("PWG", "DW", "PWG"))[1:] == ((4, 16, 4), 656)
    assert plain.cheapest(("DW", "PWG")) is None


def test_growth_may_fail_at_different_operators():
    """Where no single operator is to blame for every choice, all that are needed are named."""
    rule = StrictGrowth(Reach(4))
    several = [
        rejection.evidence["operators"]
        for composition in compositions(VOCABULARY, 5)
        if rule.reach.reaches(composition)
        and (rejection := rule.check(composition, lambda _: True))
    ]
    assert any(len(operators) > 1 for operators in several)
    assert any(len(operators) == 1 for operators in several)


# ---- why ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        ("DW+PW+DW+PW", "repeats", "the pattern DW+PW repeats at operators 1 to 4"),
        (
            "DW+PWG",
            "field",
            "with every choice of group numbers the field is at most (3, 3, 32) of (3, 3, 64)",
        ),
        (
            "GC+PW+DW",
            "field",
            "with every choice of group numbers the window exceeds (3, 3, 64): (5, 5, 64)",
        ),
        (
            "PW+DW+PW",
            "growth",
            "PW, the 3rd operator, leaves the field at (3, 3, 64) for every choice of group "
            "numbers that reaches the target",
        ),
        ("PWG+DW+PW", "subsequence", "its sub-sequence DW+PW already reaches (3, 3, 64)"),
        ("GC+PW", "depthwise", "replacing GC by DW gives DW+PW, which passes"),
        (
            "PW+DW",
            "mirror",
            "mirror image of DW+PW, whose first spatial operator stands further left",
        ),
        (
            "DW+PW@1/4",
            "ends",
            "DW, the first operator, keeps the width: it cannot enter the inner width",
        ),
        (
            "PW+DW+PWG@1/4",
            "palindrome",
            "no palindrome: the 1st operator is PW, the 3rd is PWG",
        ),
        ("PWG+GC+PWG@0.25", "depthwise", "replacing GC by DW gives PWG+DW+PWG, which passes"),
        (
            "gconv + PWGConv",
            None,
            "GC+PWG passes every rule of the plain pass; GC(32)+PWG(2) reaches (3, 3, 64)",
        ),
        (
            "PW+DW+PW@1/4",
            None,
            "PW+DW+PW@1/4 passes every rule of the bottleneck pass; "
            "PW+DW+PW@1/4 reaches (3, 3, 64)",
        ),
    ],
)
def test_why(text, rule, reason):
    verdict = funnel(64).why(text)
    assert (verdict.kept, verdict.rule, verdict.reason) == (rule is None, rule, reason)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("GC(4)+PWG", "write operators without numbers and marks, e.g. GC"),
        ("GC~+PWG", "write operators without numbers and marks, e.g. GC"),
        ("GC+PWH", "unknown operator 'PWH'; did you mean PW"),
        ("STD", "STD is not in the vocabulary GC, DW, PW, PWG"),
        ("DW+PW+DW+GC+DW+PW+DW", "has 7 operators; the maximal length is 6"),
        ("PW+DW+PW@1/2", "has the inner width @1/2; the bottleneck pass has @1/4"),
        ("", "cannot read ''"),
    ],
)
def test_why_refuses(text, sentence):
    with pytest.raises(DesignError, match=sentence.replace("+", r"\+")):
        funnel(64).why(text)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"channels": 0}, "the number of channels is 0; it must be at least 1"),
        ({"kernel": 4}, "kernel size 4 is not one of 3, 5, 7"),
        ({"kernel": 1}, "kernel size 1 is not one of 3, 5, 7"),
        ({"max_length": 0}, "the maximal length is 0; it must be at least 1"),
        ({"vocabulary": ()}, "the vocabulary .* must hold"),
        ({"vocabulary": ("GC", "DWW")}, "unknown operator 'DWW'; did you mean DW"),
        (
            {"off": ["groth"]},
            "no rule is called 'groth'; the rules are repeats, field, growth, subsequence, "
            "depthwise, mirror, ends, palindrome",
        ),
    ],
)
def test_bad_questions_are_refused(arguments, sentence):
    with pytest.raises(DesignError, match=sentence):
        funnel(**{"channels": 64, **arguments})


# ---- as a command would use it -----------------------------------------------------------------


def test_plain_data():
    data = json.loads(json.dumps(funnel(64, off=["mirror"]).as_dict()))
    assert data["steps"][1] == {
        "pass": "plain",
        "rule": "repeats",
        "kept": 1108,
        "removed": 4352,
    }
    assert data["designs"] == ["DW+PW", "GC+PWG", "PW+DW", "PWG+GC", *PAPER[2:]]
    assert (data["channels"], data["off"]) == (64, ["mirror"])


def test_nothing_heavy_is_imported():
    heavy = "torch optuna cupy numba pandas sklearn networkx rich"
    code = (
        "import sys; from analysis.funnel import funnel; funnel(64).why('PW+DW'); "
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("channels", [64, 2048])
def test_it_answers_at_once(channels):
    def seconds():
        start = time.process_time()
        funnel(channels)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.4
