"""Which design stands in which convolution of a layout."""

from __future__ import annotations

import pytest

from spaces.operator import DesignError
from spaces.slots import Slots


def slots(*arguments: str) -> Slots:
    return Slots(arguments, "stage*.spatial")


def test_what_nothing_replaces_keeps_the_layouts_own() -> None:
    assert str(slots().design("stem", "STD(k=7)")) == "STD(k=7)"


def test_a_design_alone_stands_in_the_main_ones() -> None:
    given = slots("STRUCT(c=1,n=2)")
    assert str(given.design("stage1.1.spatial", "STD")) == "STRUCT(c=1,n=2)"
    assert str(given.design("stage1.1.expand", "PW")) == "PW"


def test_a_pattern_names_others_and_the_last_match_stands() -> None:
    given = slots("DW", "stage[23].*=GC(4,k=5)", "stage2.1.*=STD")
    assert str(given.design("stage1.1.spatial", "STD")) == "DW"
    assert str(given.design("stage3.1.expand", "PW")) == "GC(4,k=5)"
    assert str(given.design("stage2.1.spatial", "DW")) == "STD"


def test_a_rule_that_replaces_nothing_is_refused_with_the_names() -> None:
    given = slots("stagge1.*=DW")
    given.design("stem", "STD")
    given.design("stage1.1", "STD")
    with pytest.raises(DesignError, match=r"stagge1\.\*=DW replaces nothing.*stem, stage1\.1"):
        given.check()


def test_a_rule_that_matches_passes_the_check() -> None:
    given = slots("DW")
    given.design("stage9.spatial", "STD")
    given.check()


@pytest.mark.parametrize("argument", ["stage1.*=", "stage1.*=NOPE", "NOPE"])
def test_an_argument_that_does_not_read(argument: str) -> None:
    with pytest.raises(DesignError, match=r"NOPE|cannot read"):
        slots(argument)
