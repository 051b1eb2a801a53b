"""What a user adds to a space, and what is taken out of it."""

from __future__ import annotations

from collections.abc import Sequence

from nas import ladder
from nas.candidates import Candidate
from nas.groups import is_composition, numbered, unsettled
from spaces.design import Design, parse
from spaces.operator import DesignError
from spaces.vocabulary import operator_class


def includable(design: Design, stages: int) -> Design:
    """The design, if some width of a network is valid and open numbers have a complete choice."""
    candidate = Candidate(numbered(design, q=1) if unsettled(design) else design, (1,) * stages)
    try:
        ladder.step(candidate)
        if candidate.design.is_family and isinstance(
            reason := ladder.complete_widths(candidate), str
        ):
            raise DesignError(reason)
    except DesignError as error:
        raise DesignError(f"cannot include {design}: {error}") from None
    return design


def without(designs: Sequence[Design], text: str) -> list[Design]:
    """The designs but those that an exclusion names: an operator, or a design of the list.

    Raises DesignError for what does not read and for a design that is not there.
    """
    left = [design for design in designs if not _matches(design, text)]
    if len(left) == len(designs) and not _is_operator(text):
        listed = ", ".join(map(str, designs))
        raise DesignError(f"cannot exclude {text!r}: the space holds {listed}")
    return left


def _is_operator(text: str) -> bool:
    try:
        return bool(operator_class(text))
    except DesignError:
        return False


def _matches(design: Design, text: str) -> bool:
    """Whether an exclusion removes the design. Raises DesignError if it does not read."""
    if _is_operator(text):
        return operator_class(text).symbol in design.composition
    asked = parse(text)
    if is_composition(asked) and is_composition(design):
        same_pass = (asked.inner is None) == (design.inner is None)
        return same_pass and asked.operators == design.operators
    return asked == design
