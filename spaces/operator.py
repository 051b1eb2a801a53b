"""The operator contract: what one sparse kernel declares about itself.

An operator knows only its hyper-parameters. Where it stands comes as a `Place` with each call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn

Mask = np.ndarray
"""Boolean array (..., channels, height, width): a set of activations, any leading batch axes."""

Permutation = np.ndarray
"""Channel indices (C,), each once: position i holds what was at permutation[i]."""


class DesignError(ValueError):
    """An operator or design that cannot be, with the reason as a sentence."""


class Box(NamedTuple):
    """An upper bound of what one output reads: a rows x columns window of `fan_in` channels."""

    rows: int
    columns: int
    fan_in: int


def integer(text: str) -> int:
    """An argument that must be a whole number."""
    if not text.isdecimal():
        raise DesignError(f"{text!r} is not a whole number")
    return int(text)


def argument(
    key: str, default: Any, read: Callable[[str], Any] = integer, *, bare: bool = False
) -> Any:
    """A hyper-parameter, written `key=value` in a design's string, or `value` alone if `bare`."""
    return field(default=default, metadata={"key": key, "read": read, "bare": bare})


class Line(NamedTuple):
    """One line of a cost ledger; what it counts is its kind (conv, bias, norm, linear, ...)."""

    kind: str
    params: int
    mults: int
    adds: int
    bytes: int


@dataclass(frozen=True)
class Operator(ABC):
    """One sparse kernel with its hyper-parameters, declared as `argument`s of a frozen dataclass.

    `kind` is linear, residual (linear plus its own identity) or step (own normalisation,
    activation and residual); `resizes` says whether F may differ from C; `grouped` whether some
    width leaves several groups of several channels, so that a shuffle follows; `ledger` is the
    kind of its lines in a cost.
    """

    symbol: ClassVar[str]
    spellings: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "linear"
    ledger: ClassVar[str] = "conv"
    resizes: ClassVar[bool] = True
    grouped: ClassVar[bool] = False

    def __post_init__(self) -> None:  # noqa: B027 - each class of a chain calls the next
        """Raises DesignError for hyper-parameters that no place allows."""

    # ---- what each operator declares -------------------------------------------------------

    @abstractmethod
    def why_invalid(self, place: Place) -> str | None:
        """None, or the reason why the operator cannot stand here, as a sentence."""

    @abstractmethod
    def reads(self, needed: Mask, place: Place) -> Mask:
        """The inputs (..., C, H, W) on which the needed outputs (..., F, H', W') depend.

        Exact, and a union-homomorphism: reads(a | b) = reads(a) | reads(b).
        """

    @abstractmethod
    def reach(self, place: Place) -> tuple[Box, ...]:
        """A few boxes that together bound what one output reads."""

    @abstractmethod
    def module(self, place: Place) -> nn.Module:
        """The differentiable module, (N, C, H, W) -> (N, F, H', W'), without bias."""

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Operator, ...]:
        """Typical members, read by enumeration, the contract test and the documentation."""

    # ---- costs, derived from the reads pattern where no weight is shared ---------------------

    def connections(self, place: Place) -> int:
        """Inputs read at one interior pixel, summed over the F output channels."""
        rows = max(box.rows for box in self.reach(place))
        columns = max(box.columns for box in self.reach(place))
        here = Place(place.channels, place.features, rows, columns)
        one_each = np.zeros((place.features, place.features, rows, columns), bool)
        outputs = np.arange(place.features)
        one_each[outputs, outputs, rows // 2, columns // 2] = True
        return int(self.reads(one_each, here).sum())

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        """The kernel (F, C, rows, columns) of the dense convolution that equals the operator, at
        random weights. Override where weights are shared; a step, which is not linear, has none.
        """
        rows, columns = self.window or (place.height, place.width)
        here = Place(place.channels, place.features, rows, columns)
        one_each = np.zeros((place.features, place.features, rows, columns), bool)
        outputs = np.arange(place.features)
        one_each[outputs, outputs, rows // 2, columns // 2] = True
        read = self.reads(one_each, here)
        return np.where(read, random.standard_normal(read.shape), 0)

    def params(self, place: Place) -> int:
        """Number of trained scalars."""
        return self.connections(place)

    def mults(self, place: Place) -> int:
        """Multiplications of one forward pass over one image."""
        return self.connections(place) * place.out_pixels

    def adds(self, place: Place) -> int:
        """Additions of one forward pass over one image: (reads per output - 1) per output."""
        return (self.connections(place) - place.features) * place.out_pixels

    def traffic(self, place: Place, itemsize: int) -> int:
        """Bytes moved when input and weights are read once and the output is written once."""
        return (place.in_elements + self.params(place) + place.out_elements) * itemsize

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        """The cost as ledger lines, at `itemsize` bytes a number."""
        line = Line(
            self.ledger,
            self.params(place),
            self.mults(place),
            self.adds(place),
            self.traffic(place, itemsize),
        )
        return (line,)

    # ---- structure ---------------------------------------------------------------------------

    @property
    def window(self) -> tuple[int, int] | None:
        """Rows and columns of the stencil's bounding box; (1, 1) for an operator without one,
        None for one that reads the whole plane however large it is."""
        return (1, 1)

    @property
    def spatial(self) -> bool:
        """Whether an output reads more than its own pixel."""
        return self.window != (1, 1)

    @property
    def strides(self) -> bool:
        """Whether the operator can take the stride of its design."""
        return self.spatial

    @property
    def is_open(self) -> bool:
        """Whether a number is missing, so that the operator stands for a family."""
        return False

    def adds_input(self, place: Place) -> bool:
        """Whether the input itself is a term of the result, as in a residual or a time step."""
        return self.kind != "linear"

    def groups(self, place: Place) -> int:
        """Number of channel groups that do not exchange information (1 where all mix)."""
        return 1

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        """The permutation of inputs that a permutation of outputs amounts to, None if unknown.

        reads(needed[permutation]) = reads(needed)[carried] for every needed. None claims
        nothing, so it is always right; the field of the design then costs a fold per output.
        """
        return None

    def turned(self, before: int) -> Operator:
        """The operator in its design, where `before` operators that alternate stand before it.

        One that does not alternate along a design returns itself; one that does never does.
        """
        return self

    def canonical(self, place: Place | None = None) -> Operator:
        """The one operator that stands for all that are identical to it (here, when given)."""
        return self

    # ---- notation ----------------------------------------------------------------------------

    @classmethod
    def arguments(cls) -> tuple[Field[Any], ...]:
        """The hyper-parameters in the order in which they are written: bare ones first."""
        named = (f for f in fields(cls) if "key" in f.metadata)
        return tuple(sorted(named, key=lambda f: not f.metadata["bare"]))

    @classmethod
    def usage(cls) -> str:
        """How the operator is written, e.g. `GC(g,q=,k=,d=)`."""
        keys = [f.metadata["key"] + "=" * (not f.metadata["bare"]) for f in cls.arguments()]
        return cls.symbol + (f"({','.join(keys)})" if keys else "")

    @classmethod
    def read(cls, words: Sequence[str]) -> Self:
        """From the comma-separated words between the brackets, `("4", "k=5")`.

        Raises DesignError for an unknown or repeated key and for a value that does not read.
        """
        known = {f.metadata["key"]: f for f in cls.arguments()}
        bare = [key for key, f in known.items() if f.metadata["bare"]]
        values: dict[str, Any] = {}
        for word in words:
            key, equals, text = word.partition("=")
            if not equals:
                if not bare:
                    raise DesignError(f"{word!r} needs a key: write {cls.usage()}")
                key, text = bare.pop(0), word
            if key not in known or known[key].name in values:
                problem = "repeats the" if key in known else "has no"
                raise DesignError(f"{cls.symbol} {problem} argument {key!r}: write {cls.usage()}")
            try:
                values[known[key].name] = known[key].metadata["read"](text)
            except DesignError as error:
                raise DesignError(f"{cls.symbol}({word}): {error}") from None
        return cls(**values)

    def __str__(self) -> str:
        words = [
            str(value) if f.metadata["bare"] else f"{f.metadata['key']}={value}"
            for f in self.arguments()
            if (value := getattr(self, f.name)) != f.default
        ]
        return self.symbol + (f"({','.join(words)})" if words else "")
