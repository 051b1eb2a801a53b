"""A design: the sparse kernels that together replace one dense convolution.

The string is its identity: `parse(str(design)) == design`. Where each part stands is decided
here alone (`Design.places`); field, cost, module and export walk that list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from spaces.fixed import AveragePool, Shuffle
from spaces.operator import DesignError, Operator
from spaces.place import Place
from spaces.vocabulary import operator_class

SCHEMA = 1
_TO_SLUG = str.maketrans("+()/*", "_-.%!")
_FROM_SLUG = str.maketrans("_-.%!", "+()/*")


class Step(NamedTuple):
    """One item of a design where it stands; `position` counts the operators, None for
    a fixed item."""

    item: Operator
    place: Place
    position: int | None


@dataclass(frozen=True)
class Design:
    """A tuple of operators, the inner width as a fraction of F, and the shuffles left out.

    >>> str(parse("pwgconv(4) + DWConv + PWGConv(4) @ 0.25"))
    'PWG(4)+DW+PWG(4)@1/4'
    """

    operators: tuple[Operator, ...]
    inner: Fraction | None = None
    unshuffled: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.operators:
            raise DesignError("a design needs at least one operator")
        if self.inner is not None and self.inner <= 0:
            raise DesignError(f"the inner width @{self.inner} must be a positive fraction of F")
        canonical = tuple(operator.canonical() for operator in self.operators)
        object.__setattr__(self, "operators", canonical)
        last = len(canonical) - 1
        kept = frozenset(i for i in self.unshuffled if 0 <= i < last and canonical[i].grouped)
        object.__setattr__(self, "unshuffled", kept)

    # ---- identity ----------------------------------------------------------------------------

    def __str__(self) -> str:
        parts = (str(op) + "~" * (i in self.unshuffled) for i, op in enumerate(self.operators))
        return "+".join(parts) + (f"@{self.inner}" if self.inner is not None else "")

    @property
    def slug(self) -> str:
        """The string as a file name: no slash, bracket or star. `from_slug` goes back."""
        escaped = re.sub(r"[-_.%!&]", lambda found: f"&{ord(found[0]):02x}", str(self))
        return escaped.translate(_TO_SLUG)

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, "design": str(self)})

    @property
    def is_family(self) -> bool:
        """Whether a group number is missing."""
        return any(operator.is_open for operator in self.operators)

    @property
    def composition(self) -> tuple[str, ...]:
        """The symbols of the operators, without numbers."""
        return tuple(operator.symbol for operator in self.operators)

    def mirrored(self) -> Design:
        """The operators in reverse order, each shuffle staying behind the same operator."""
        last = len(self.operators) - 1
        left_out = frozenset(last - i for i in self.unshuffled)
        return Design(self.operators[::-1], self.inner, left_out)

    def canonical(self, channels: int, features: int | None = None) -> Design:
        """The same design with every identity resolved at this width: GC(C) prints DW.

        Raises DesignError where the design cannot stand.
        """
        here = {
            step.position: self.operators[step.position].canonical(step.place)
            for step in self.places(channels, features)
            if step.position is not None
        }
        design = replace(self, operators=tuple(here[i] for i in range(len(self.operators))))
        plain = replace(design, inner=None)
        same = plain.widths(channels, features) == self.widths(channels, features)
        return plain if same else design

    def turned(self, before: int = 0) -> Design:
        """Each operator that alternates along a design in the form that it takes here, where
        `before` alternating operators stand before the design in its block.

        >>> str(parse("LEAN(g=4,s=3)+PW+LEAN(g=4,s=3)").turned())
        'LEAN(g=4,s=1x3)+PW+LEAN(g=4,s=3x1)'
        """
        operators, first = [], before
        for operator in self.operators:
            operators.append(operator.turned(before))
            before += operators[-1] is not operator
        return replace(self, operators=tuple(operators)) if before > first else self

    # ---- where each part stands --------------------------------------------------------------

    def widths(self, channels: int, features: int | None = None) -> tuple[int, ...]:
        """Channels before the first operator, between each two, and after the last.

        Without @r the last operator that can change the width maps C to F; with it the first
        maps C to K = r F and the last K to F. Raises DesignError with the reason.
        """
        features = channels if features is None else features
        if min(channels, features) < 1:
            raise DesignError(
                f"{self} cannot map {channels} to {features} channels; both must be at least 1"
            )
        resizing = [i for i, operator in enumerate(self.operators) if operator.resizes]
        if self.inner is None:
            if not resizing and channels != features:
                raise DesignError(
                    f"{self} has no operator that can map {channels} to {features} channels"
                )
            change = resizing[-1] if resizing else len(self.operators)
            return tuple(
                channels if i <= change else features for i in range(len(self.operators) + 1)
            )
        if len(resizing) < 2:
            raise DesignError(
                f"{self}: @{self.inner} needs two operators that can change the width, one to "
                f"enter the inner width and one to leave it; found {len(resizing)}"
            )
        inner = self.inner * features
        if inner.denominator != 1:
            raise DesignError(
                f"{self}: the inner width {self.inner} x {features} is not a whole number; valid "
                f"output widths are multiples of {self.inner.denominator}"
            )
        first, last = resizing[0], resizing[-1]
        return tuple(
            channels if i <= first else int(inner) if i <= last else features
            for i in range(len(self.operators) + 1)
        )

    def places(
        self,
        channels: int,
        features: int | None = None,
        height: int = 1,
        width: int = 1,
        stride: int = 1,
    ) -> tuple[Step, ...]:
        """Each operator, shuffle and pool of the design, and where it stands.

        Raises DesignError with the reason where the design cannot stand.
        """
        return tuple(self._walk(channels, features, height, width, stride))

    def _walk(
        self, channels: int, features: int | None, height: int, width: int, stride: int
    ) -> Iterator[Step]:
        widths = self.widths(channels, features)
        striding = next((i for i, op in enumerate(self.operators) if op.strides), None)
        if stride > 1 and striding is None:
            pool = Place(channels, channels, height, width, stride)
            yield Step(AveragePool(), pool, None)
            height, width = pool.out_height, pool.out_width
        for i, operator in enumerate(self.turned().operators):
            own_stride = stride if i == striding else 1
            place = Place(widths[i], widths[i + 1], height, width, own_stride)
            if (reason := operator.why_invalid(place)) is not None:
                raise DesignError(reason)
            yield Step(operator, place, i)
            height, width = place.out_height, place.out_width
            g = operator.groups(place)
            last = i == len(self.operators) - 1
            if not last and i not in self.unshuffled and 1 < g < place.features:
                yield Step(Shuffle(g), Place(place.features, place.features, height, width), None)

    def why_invalid(
        self, channels: int, features: int | None = None, stride: int = 1
    ) -> str | None:
        """None, or why the design cannot stand at these widths."""
        try:
            self.places(channels, features, stride=stride)
        except DesignError as error:
            return str(error)
        return None


@lru_cache(maxsize=16384)
def parse(text: str) -> Design:
    """Read a design in our notation or in the papers' (`GConv(100)+PWGConv(2)`).

    Raises DesignError that names the part that does not read.
    """
    body, at, ratio = text.partition("@")
    operators: list[Operator] = []
    unshuffled: list[int] = []
    for i, part in enumerate(split_outside_brackets(body, "+")):
        match = re.fullmatch(r"\s*([^()~]*?)\s*(?:\(([^()]*)\))?\s*(~?)\s*", part)
        if match is None or not match[1]:
            raise DesignError(f"cannot read {part.strip()!r} in {text!r}; write e.g. GC(4)+PWG(2)")
        name, arguments, tilde = match.groups()
        words = [w.strip() for w in arguments.split(",")] if arguments else []
        operators.append(operator_class(name).read(words))
        if tilde:
            unshuffled.append(i)
    inner = None
    if at:
        try:
            inner = Fraction(ratio.strip())
        except (ValueError, ZeroDivisionError):
            raise DesignError(
                f"cannot read the inner width {ratio.strip()!r} in {text!r}; write e.g. @1/4"
            ) from None
    return Design(tuple(operators), inner, frozenset(unshuffled))


def from_slug(slug: str) -> Design:
    """The design of a file name made by `Design.slug`."""
    escaped = slug.translate(_FROM_SLUG)
    return parse(re.sub(r"&([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), escaped))


def from_json(text: str) -> Design:
    """The design of `Design.to_json`. Raises DesignError for another schema."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or "design" not in data:
        raise DesignError(f"not a design of schema {SCHEMA}: {text[:80]}")
    return parse(data["design"])


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split at separators that stand outside round brackets.

    >>> split_outside_brackets("GC(4,k=5),DW", ",")
    ['GC(4,k=5)', 'DW']
    """
    return re.split(re.escape(separator) + r"(?![^()]*\))", text)
