"""What an exported Python file says of itself: specification, costs, fields, what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from textwrap import indent, wrap
from typing import Any

from analysis.cost import TORCH
from nas.candidates import Sized
from nas.exports import fields, file_stem


def docstring(sized: Sized, weights: str | None, facts: Mapping[str, Any]) -> str:
    """The text in its quotes; rows whose value is None are left out."""
    candidate, cost, task = sized.candidate, sized.cost, sized.task
    image = " x ".join(map(str, task.input))
    name = file_stem(sized)
    relu = ", ".join(f"operator {i + 1}" for i in candidate.inner)
    sections: dict[str, dict[str, object]] = {
        "Specification": {
            "design": candidate.design,
            "known as": candidate.known_as,
            "layout": "fog (Penetrating the Fog, Table 1)",
            "blocks": "-".join(map(str, candidate.blocks)),
            "width": f"{sized.width} channels in the first stage",
            "input": image,
            "classes": task.classes,
            "ReLU after": f"{relu} and each sum" if relu else "each sum",
        },
        f"Costs of one image ({cost.dtype}, convention {cost.convention!r})": {
            "params": cost.params,
            "mults": cost.mults,
            "adds": cost.adds,
            "traffic": f"{cost.traffic_bytes} bytes, "
            f"or {cost.traffic_bytes_fused} with each block fused",
            "peak": f"{cost.peak_activation_bytes} bytes of activations",
        },
        "Information field (columns, rows, channels) of each block": dict(_field_rows(sized)),
        "Measured": dict(facts),
        "Use": {
            f"from {name} import Block, Network, load": "",
            f'network = load("{weights}")' if weights else "network = Network()": "",
        },
    }
    convention = TORCH.statement if cost.convention == TORCH.name else ""
    text = [f"{candidate.design}: a network for {image} images, found by leanfield."]
    for title, rows in sections.items():
        lines = [_row(key, value) for key, value in rows.items() if value is not None]
        lines += wrap(convention, 80) if title.startswith("Costs") else []
        if lines:
            text.append(f"{title}\n" + indent("\n".join(lines), "    "))
    body = "\n\n".join(text).replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return f'"""{body}\n"""'


def _row(key: str, value: object) -> str:
    """Name and value on one line, whatever white space the value holds."""
    words = " ".join(str(value).split())
    return f"{key:<16} {words}" if words else key


def _field_rows(sized: Sized) -> Iterator[tuple[str, str]]:
    """One row for each run of equal blocks."""
    for _, run in groupby(fields(sized), key=lambda s: (s.design, s.channels, s.features)):
        same = list(run)
        name, design, channels, features, seen = same[0]
        ends = name if len(same) == 1 else f"{name}-{same[-1].name.removeprefix('stage')}"
        word = "complete" if seen.complete else f"{seen.missing_taps} inputs missing"
        yield ends, f"{seen.size} {word}: {design}, {channels} -> {features}"
