"""Compositions, the rules that look at symbols alone, and exact counts behind a pruned prefix."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.enumerate import Space, compositions
from spaces.operator import DesignError
from spaces.rules import Ends, InnerWidth, Mirror, Palindrome, Repeats

FOG = ("GC", "DW", "PW", "PWG")
WORDS = st.lists(st.sampled_from([*FOG, "STD"]), min_size=1, max_size=12).map(tuple)


def always(composition):
    return True


def never(composition):
    return False


def naive_repeats(word):
    """Every region of the word that is a pattern twice or more: (pattern, start, end)."""
    found = []
    for start in range(len(word)):
        for length in range(1, len(word) - start):
            pattern = word[start : start + length]
            end = start + length
            while word[end : end + length] == pattern:
                end += length
                found.append((pattern, start + 1, end))
    return found


@given(WORDS)
def test_repeats_equal_a_naive_search(word):
    rejection = Repeats().check(word, never)
    regions = naive_repeats(word)
    assert (rejection is not None) == bool(regions)
    if rejection:
        evidence = rejection.evidence
        assert (evidence["pattern"], evidence["start"], evidence["end"]) in regions
        assert evidence["start"] == min(start for _, start, _ in regions)


@given(WORDS, WORDS)
def test_repeats_are_hereditary(prefix, rest):
    if Repeats().check(prefix, never):
        assert Repeats().check(prefix + rest, never)


def test_symbols_of_several_letters_are_one_character():
    """PW+PWG repeats no symbol, although its letters repeat PW."""
    assert Repeats().check(("PW", "PWG"), never) is None
    rejection = Repeats().check(("GC", "DW", "PW", "DW", "PW"), never)
    assert rejection.reason == "the pattern DW+PW repeats at operators 2 to 5"
    assert Repeats().check(("PWG",) * 3, never).evidence == {
        "pattern": ("PWG",),
        "start": 1,
        "end": 3,
    }


@given(WORDS)
def test_palindromes(word):
    rejection = Palindrome().check(word, never)
    assert (rejection is None) == (list(word) == list(reversed(word)))
    if rejection:
        first, last = rejection.evidence["operators"]
        assert word[first - 1] != word[last - 1]
        assert first - 1 == len(word) - last


@pytest.mark.parametrize(
    ("word", "operator"),
    [
        (("DW", "PW"), 1),
        (("PW", "DW"), 2),
        (("PW", "GC", "DW"), 3),
        (("PW",), 1),
        (("PW", "DW", "PW"), None),
        (("GC", "PWG"), None),
        (("STD", "PW"), None),
    ],
)
def test_the_ends_of_a_bottleneck_change_the_width(word, operator):
    rejection = Ends().check(word, never)
    assert (rejection and rejection.evidence["operator"]) == operator


def test_the_inner_width():
    assert InnerWidth(64, Fraction(1, 4)).check(("PW", "PW"), never) is None
    assert InnerWidth(54, Fraction(1, 4)).check(("PW", "PW"), never).reason == (
        "the inner width 1/4 x 54 is not a whole number; valid widths are multiples of 2"
    )


def test_mirror_prefers_the_spatial_operator_then_the_cheaper_then_the_vocabulary():
    def removed(word, cost=lambda word: 0, passes=always):
        return Mirror(FOG, cost).check(word, passes)

    assert removed(("PW", "DW")).reason == (
        "mirror image of DW+PW, whose first spatial operator stands further left"
    )
    assert removed(("DW", "PW")) is None
    costs = {("PW", "DW", "PWG"): 7, ("PWG", "DW", "PW"): 5}
    assert removed(("PW", "DW", "PWG"), costs.__getitem__).reason == (
        "mirror image of PWG+DW+PW, which is cheaper: 5 against 7 parameters"
    )
    assert removed(("PWG", "DW", "PW"), costs.__getitem__) is None
    assert "order of the vocabulary" in removed(("PWG", "DW", "PW")).reason
    assert removed(("PW", "DW", "PWG")) is None
    assert removed(("PW", "PWG")) is None
    assert removed(("PWG", "PW")).evidence == {"mirror": ("PW", "PWG")}


def test_mirror_needs_an_image_that_passes():
    assert Mirror(FOG, len).check(("PW", "DW"), never) is None
    assert Mirror(FOG, len).check(("PW", "DW", "PW"), always) is None


# ---- the space ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "length", "count"), [(4, 6, 5460), (3, 4, 120), (1, 5, 5)])
def test_the_number_of_compositions(size, length, count):
    symbols = FOG[:size]
    everything = list(compositions(symbols, length))
    assert len(everything) == len(set(everything)) == len(Space(symbols, length)) == count
    assert all(composition in Space(symbols, length) for composition in everything)


def test_what_lies_outside_a_space():
    space = Space(("PW", "DW"), 2)
    for outside in [(), ("GC",), ("PW", "DW", "PW")]:
        assert outside not in space


def test_extensions_of_a_prefix():
    space = Space(FOG, 4)
    behind = [c for c in compositions(FOG, 4) if c[:2] == ("DW", "DW")]
    assert space.extensions(2) == len(behind) == 1 + 4 + 16


@pytest.mark.parametrize("rules", [(Repeats(), Palindrome()), (Palindrome(), Repeats())])
@pytest.mark.parametrize(("size", "length"), [(2, 7), (3, 6), (4, 5), (4, 1)])
def test_pruning_keeps_the_counts_exact(rules, size, length):
    """Against asking every rule about every composition."""
    space = Space(FOG[:size], length, rules)
    steps, survivors = space.sift()
    left = list(compositions(FOG[:size], length))
    for step, rule in zip(steps, rules, strict=True):
        passed = [c for c in left if rule.check(c, always) is None]
        assert step == (rule.name, len(passed), len(left) - len(passed))
        left = passed
    assert list(survivors) == left


def test_square_free_words_by_length():
    """4, 12, 36, 96, 264, 696: the square-free words on four letters."""
    kept = [Space(FOG, length, (Repeats(),)).sift()[0][0].kept for length in range(1, 7)]
    assert [b - a for a, b in zip([0, *kept], kept, strict=False)] == [4, 12, 36, 96, 264, 696]


def test_every_composition_has_a_verdict():
    space = Space(FOG, 4, (Repeats(), Ends(), Palindrome()))
    _, survivors = space.sift()
    for composition in product(FOG, repeat=4):
        assert (space.verdict(composition) is None) == (composition in survivors)
    rejection = space.verdict(("DW", "DW", "PW", "GC"))
    assert rejection.rule == "repeats"


@pytest.mark.parametrize(
    ("symbols", "length", "sentence"),
    [
        ((), 3, "must hold distinct symbols"),
        (("PW", "PW"), 3, "must hold distinct symbols"),
        (("PW",), 0, "the maximal length is 0; it must be at least 1"),
    ],
)
def test_a_space_that_cannot_be(symbols, length, sentence):
    with pytest.raises(DesignError, match=sentence):
        Space(symbols, length)
