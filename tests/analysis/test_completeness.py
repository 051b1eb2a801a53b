"""The closed form of completeness against the exact field."""

from __future__ import annotations

import random

import pytest

from analysis.completeness import channels_seen, why_incomplete
from analysis.field import field
from spaces.design import Design, parse
from spaces.grouped import divisors


def random_design(rng: random.Random) -> tuple[Design, int, int]:
    """A chain of up to four operators whose group numbers divide its widths."""
    while True:
        channels = rng.choice([4, 6, 8, 12, 16, 18])
        features = rng.choice([channels, 2 * channels])
        inner = rng.choice(["", "", "@1/2"])
        groups = [*divisors(channels // 2), channels]
        words = []
        for symbol in rng.choices(["GC", "PWG", "DW", "PW", "STD"], [4, 5, 3, 1, 1], k=4):
            number = f"({rng.choice(groups)})" if symbol in ("GC", "PWG") else ""
            words.append(symbol + number + "~" * (symbol != "DW" and rng.random() < 0.15))
        text = "+".join(words[: rng.randint(1, 4)])
        try:
            design = parse(text + inner)
            if design.why_invalid(channels, features) is None:
                return design, channels, features
        except ValueError:
            continue


def test_closed_form_equals_the_field() -> None:
    rng = random.Random(0)
    complete = 0
    for _ in range(400):
        design, channels, features = random_design(rng)
        exact = field(design, channels, features)
        reason = why_incomplete(design, channels, features)
        assert (reason is None) == exact.complete, (str(design), channels, features, reason)
        complete += exact.complete
        if not design.unshuffled:
            assert channels_seen(design, channels, features) == exact.size[2]
    assert 50 < complete < 350


@pytest.mark.parametrize(
    ("design", "channels", "says"),
    [
        ("GC(8)+PWG(8)", 56, "sees 49 channels, not all 56"),
        ("PW+PW", 8, "misses taps of the 3 x 3 window"),
        ("DW(d=2)+PW", 8, "misses taps of the 3 x 3 window"),
        ("GC(4)~+PWG(4)", 16, "sees [3, 3, 4], not all of [3, 3, 16]"),
    ],
)
def test_reason_says_what_is_missing(design: str, channels: int, says: str) -> None:
    reason = why_incomplete(parse(design), channels, channels)
    assert reason is not None
    assert says in reason
    assert reason.startswith(f"{parse(design)} at {channels} -> {channels} channels")
