"""The notation, both ways: what is written reads back, what does not read says why."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.design import Design, from_json, from_slug, parse, split_outside_brackets
from spaces.operator import DesignError
from spaces.operators.depthwise import Depthwise
from spaces.operators.group import Group
from spaces.operators.pointwise import Pointwise
from spaces.operators.pointwise_group import PointwiseGroup
from spaces.operators.standard import Standard
from spaces.vocabulary import vocabulary

kernels = st.sampled_from([1, 3, 5, 7, 11])
dilations = st.integers(1, 4)
numbers = st.one_of(st.none(), st.just("*"), st.integers(1, 3000))
sizes = st.integers(1, 64)
operators = st.one_of(
    st.just(Pointwise()),
    st.builds(Standard, kernels, dilations),
    st.builds(Depthwise, kernels, dilations),
    st.builds(Group, kernels, dilations, numbers),
    st.builds(Group, kernels, dilations, q=sizes),
    st.builds(PointwiseGroup, numbers),
    st.builds(PointwiseGroup, q=sizes),
)
ratios = st.fractions(Fraction(1, 32), 8, max_denominator=32)
designs = st.builds(
    Design,
    st.lists(operators, min_size=1, max_size=6).map(tuple),
    st.none() | ratios,
    st.frozensets(st.integers(0, 5)),
)


@given(designs)
def test_what_is_printed_reads_back(design: Design) -> None:
    text = str(design)
    assert parse(text) == design
    assert str(parse(text)) == text
    assert " " not in text


@given(designs)
def test_the_slug_is_a_file_name_and_reads_back(design: Design) -> None:
    assert re.fullmatch(r"[\w.,=~%!@&-]+", design.slug)
    assert from_slug(design.slug) == design


@given(designs)
def test_the_json_is_a_schema_and_the_string(design: Design) -> None:
    assert json.loads(design.to_json()) == {"schema": 1, "design": str(design)}
    assert from_json(design.to_json()) == design


@given(designs, st.randoms(use_true_random=False))
def test_case_spaces_and_the_papers_names_do_not_matter(design: Design, random) -> None:  # type: ignore[no-untyped-def]
    def respell(match: re.Match[str]) -> str:
        kind = vocabulary()[match[0]]
        name = random.choice((kind.symbol, *kind.spellings))
        return str(random.choice((name, name.lower(), name.upper(), f" {name} ")))

    text = re.sub(r"\b[A-Z]+\b", respell, str(design))
    text = re.sub(r"[+@~(),]", lambda sign: random.choice(("", " ")) + sign[0] + " ", text)
    assert parse(text) == design


@given(designs)
def test_a_mirror_image_twice_is_the_design(design: Design) -> None:
    mirror = design.mirrored()
    assert mirror.operators == design.operators[::-1]
    ends = {0, len(design.operators) - 1}
    if not design.unshuffled & ends:
        assert mirror.mirrored() == design


@settings(deadline=None)
@given(designs, st.sampled_from([4, 12, 16, 24, 60]), st.sampled_from([12, 16, 48]))
def test_the_canonical_design_costs_the_same(design: Design, channels: int, features: int) -> None:
    if design.why_invalid(channels, features) is not None:
        return
    canonical = design.canonical(channels, features)
    assert canonical.canonical(channels, features) == canonical
    assert parse(str(canonical)) == canonical
    params = [
        sum(step.item.params(step.place) for step in d.places(channels, features))
        for d in (design, canonical)
    ]
    assert params[0] == params[1]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("GConv(100)+PWGConv(2)", "GC(100)+PWG(2)"),
        ("Standard Convolution", "STD"),
        ("standard", "STD"),
        ("Depthwise Convolution + Pointwise Convolution", "DW+PW"),
        ("DWConv+PWConv", "DW+PW"),
        ("Group Convolution(4) + Pointwise Group Convolution(32)", "GC(4)+PWG(32)"),
        ("PWGConv(100)+DWConv+PWGConv(2)", "PWG(100)+DW+PWG(2)"),
        ("pw+dw+pw @ 0.25", "PW+DW+PW@1/4"),
        ("PW+DW+PW@4/16", "PW+DW+PW@1/4"),
        ("PW+DW+PW@6", "PW+DW+PW@6"),
        ("gc(g=4, d=2, k=5)", "GC(4,k=5,d=2)"),
        ("GC(q=16)", "GC(q=16)"),
        ("GC(1)+PWG(1)", "STD+PW"),
        ("GC(1,k=5)", "STD(k=5)"),
        ("GC(4,k=1)+STD(k=1)", "PWG(4)+PW"),
        ("DW(k=3,d=1)", "DW"),
        ("GC(*)+PWG(*)", "GC(*)+PWG(*)"),
        ("GC()+PWG", "GC+PWG"),
        ("GC(4)~+PW", "GC(4)~+PW"),
        ("GC(4) ~ + PW~", "GC(4)~+PW"),
        ("DW~+PW", "DW+PW"),
        ("GC(1)~+PW", "STD+PW"),
    ],
)
def test_spellings_and_their_canonical_form(written: str, canonical: str) -> None:
    assert str(parse(written)) == canonical
    assert parse(written) == parse(canonical)


@pytest.mark.parametrize(
    ("text", "channels", "features", "canonical"),
    [
        ("GC(64)+PWG(1)", 64, 64, "DW+PW"),
        ("GC(64)+PW", 64, 128, "DW+PW"),
        ("GC(q=16)", 64, 64, "GC(4)"),
        ("GC(q=1)", 64, 64, "DW"),
        ("GC(q=64)", 64, 64, "STD"),
        ("PWG(4)+DW+PWG(4)@1", 64, 64, "PWG(4)+DW+PWG(4)"),
        ("PWG(4)+DW+PWG(4)@1", 64, 128, "PWG(4)+DW+PWG(4)@1"),
        ("GC(q=32,k=5)~+PW", 64, 64, "GC(2,k=5)~+PW"),
    ],
)
def test_identities_resolve_once_the_width_is_known(
    text: str, channels: int, features: int, canonical: str
) -> None:
    assert str(parse(text).canonical(channels, features)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("GCX(4)", "unknown operator 'GCX'; did you mean GC?"),
        ("DVConv", "did you mean DW?"),
        ("Pointwize", "did you mean PW?"),
        ("XYZQ+PW", "unknown operator 'XYZQ'. Known operators: "),
        ("", "cannot read ''"),
        ("DW+", "cannot read '' in 'DW+'"),
        ("+DW", "cannot read ''"),
        ("GC(4", "cannot read 'GC(4'"),
        ("GC(4)~~", "cannot read 'GC(4)~~'"),
        ("GC)4(", "cannot read 'GC)4('"),
        ("GC(0)", "GC: g=0 is below 1"),
        ("PWG(0)", "PWG: g=0 is below 1"),
        ("GC(q=0)", "GC: q=0 is below 1"),
        ("GC(-2)", "'-2' is not a whole number"),
        ("GC(1.5)", "'1.5' is not a whole number"),
        ("GC(four)", "'four' is not a whole number"),
        ("GC(2,q=2)", "g=2 and q=2 contradict"),
        ("GC(2,3)", "'3' needs a key: write GC("),
        ("GC(2,g=3)", "GC repeats the argument 'g'"),
        ("GC(x=3)", "GC has no argument 'x'"),
        ("PW(k=3)", "PW has no argument 'k'"),
        ("DW(4)", "'4' needs a key: write DW("),
        ("DW(k=4)", "kernel size 4 is not odd; valid are 1, 3, 5, 7"),
        ("STD(k=0)", "kernel size 0 is not odd"),
        ("DW(d=0)", "dilation 0 is below 1"),
        ("PW+DW+PW@0", "@0 must be a positive fraction"),
        ("PW+DW+PW@-1/4", "@-1/4 must be a positive fraction"),
        ("PW+DW+PW@1/0", "cannot read the inner width '1/0'"),
        ("PW+DW+PW@", "cannot read the inner width ''"),
        ("PW+DW+PW@quarter", "cannot read the inner width 'quarter'"),
        ("PW+DW+PW@1/4@1/4", "cannot read the inner width '1/4@1/4'"),
        ("PW+DW+PW@inf", "cannot read the inner width 'inf'"),
    ],
)
def test_what_does_not_read_says_why(text: str, says: str) -> None:
    with pytest.raises(DesignError, match=re.escape(says)):
        parse(text)


@pytest.mark.parametrize(
    ("text", "channels", "features", "says"),
    [
        ("GC(5)+PW", 64, 64, "valid group numbers are 1, 2, 4, 8, 16, 32, 64"),
        ("GC(16)", 48, 40, "valid group numbers are 1, 2, 4, 8"),
        ("GC(q=5)", 64, 64, "valid sizes are 1, 2, 4, 8, 16, 32, 64"),
        ("PWG(4)+DW+PWG(8)@1/4", 64, 48, "8 groups do not divide 12 input and 48 output"),
        ("PW+DW+PW@1/3", 64, 64, "valid output widths are multiples of 3"),
        ("PW+DW@1/4", 64, 64, "needs two operators that can change the width"),
        ("DW", 64, 128, "no operator that can map 64 to 128 channels"),
        ("DW+DW", 64, 32, "no operator that can map 64 to 32 channels"),
        ("DW+PW", 0, 64, "both must be at least 1"),
        ("DW+PW", 64, -1, "both must be at least 1"),
        ("GC+PWG", 64, 64, "it names a family, not a design"),
        ("GC(*)+PWG(*)", 64, 64, "has no group number yet"),
    ],
)
def test_what_cannot_stand_says_why(text: str, channels: int, features: int, says: str) -> None:
    design = parse(text)
    reason = design.why_invalid(channels, features)
    assert reason is not None
    assert says in reason
    with pytest.raises(DesignError, match=re.escape(says)):
        design.places(channels, features, 8, 8)


def test_no_operators_is_no_design() -> None:
    with pytest.raises(DesignError, match="at least one operator"):
        Design(())


@pytest.mark.parametrize("text", ['{"schema": 2, "design": "PW"}', '{"schema": 1}', '["PW"]'])
def test_json_of_another_schema_is_refused(text: str) -> None:
    with pytest.raises(DesignError, match="not a design of schema 1"):
        from_json(text)


def test_lists_split_outside_brackets() -> None:
    assert split_outside_brackets("GC(4,k=5),DW,GC(2)", ",") == ["GC(4,k=5)", "DW", "GC(2)"]
    assert split_outside_brackets("PW", ",") == ["PW"]


def test_families_and_compositions() -> None:
    assert parse("GC+PWG").is_family
    assert parse("GC(*)+PW").is_family
    assert not parse("GC(q=4)+PW").is_family
    assert parse("PWG(4)+DW+PWG(4)@1/4").composition == ("PWG", "DW", "PWG")
