"""The commands about whole networks: the papers' tables recomputed, and one network by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from nas.cli_query import Json, emit

if TYPE_CHECKING:
    from analysis.conventions import Convention
    from analysis.published.rows import Computed, Figure, Row
    from spaces.network import Network, Part


def tables(
    paper: Annotated[
        str | None,
        Argument(metavar="[PAPER]", help="a paper's name or a part of it; all if absent"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every row of the papers' tables beside what the model computes, with the residual."""
    from analysis.conventions import CONVENTIONS
    from analysis.published.recompute import recompute
    from analysis.published.rows import rows

    found = [(row, recompute(row)) for row in rows(paper)]
    used = {row.convention for row, _ in found}
    statements = {name: c.statement for name, c in CONVENTIONS.items() if name in used}
    if as_json:
        emit({"rows": [_facts(*pair) for pair in found], "conventions": statements})
        return
    title = None
    for row, computed in found:
        if (row.paper, row.table) != title:
            title = (row.paper, row.table)
            print(f"\n{row.paper}, Table {row.table}")
        print(_line(row, computed))
    print()
    for name, statement in statements.items():
        print(f"convention {name}: {statement}")


def _facts(row: Row, computed: Computed) -> dict[str, Any]:
    from analysis.published.rows import FIGURES

    return {
        "paper": row.paper,
        "table": row.table,
        "row": row.row,
        "dataset": row.dataset,
        "published": {figure: row.published.get(figure) for figure in FIGURES},
        "computed": {figure: computed.get(figure) for figure in FIGURES},
        "residual": row.residuals(computed),
        "within": row.holds(computed),
        "status": row.status,
        "note": row.note,
        "quantity": row.quantity,
        "network": row.network,
        "input": row.input and list(row.input),
        "classes": row.classes,
        "convention": row.convention,
    }


def _line(row: Row, computed: Computed) -> str:
    """`ResNet Res24, CIFAR10   params 4.7M -> 4,706,666 (+0.1 %)   reproduced`."""
    figures = []
    residuals = row.residuals(computed)
    for figure, published in row.published.items():
        value = computed.get(figure)
        if value is None:
            figures.append(f"{figure} {_printed(row, figure)} -> not computed")
        else:
            share = residuals[figure] / published
            figures.append(f"{figure} {_printed(row, figure)} -> {_exact(value)} ({share:+.1%})")
    name = f"{row.row}, {row.dataset}" if row.dataset else str(row.row)
    reason = f": {row.note}" if row.note and row.status != "reproduced" else ""
    return f"  {name:<38} {'; '.join(figures)}  [{row.convention}] {row.status}{reason}"


def network(
    layout: Annotated[
        str, Argument(metavar="NETWORK", help="e.g. 'LeanResNet(Res24, LEAN(g=16,s=5))'")
    ],
    input: Annotated[str, Option(help="channels x height x width")] = "3x32x32",
    classes: Annotated[int, Option(min=1)] = 10,
    convention: Annotated[str, Option(help="what counts; see `leanfield tables`")] = "torch",
    dtype: Annotated[str, Option(help="float32, bfloat16, float16, float64 or int8")] = "float32",
    as_json: Json = False,
) -> None:
    """What a whole network costs and sees, layer by layer."""
    from analysis.conventions import convention as named
    from analysis.cost import network_cost
    from analysis.network_field import last_map, seen
    from spaces.layout import network as by_name

    counting = named(convention)
    shape = _shape(input)
    built = by_name(layout, shape, classes)
    total = network_cost(built, dtype=dtype, convention=counting)
    layers = _layers(built, dtype, counting)
    last, view = last_map(built).name, seen(built)
    if as_json:
        field = {"part": last, "size": list(view.size), "volume": view.volume}
        facts = {"network": layout, "input": list(shape), "classes": classes}
        emit(facts | total.to_dict() | {"field": field, "layers": layers})
        return
    print(f"{layout}, input {input}, {classes} classes, {dtype}")
    print(f"  {'part':<24}{'map':>14}{'params':>14}{'mults':>16}  design and field")
    for layer in layers:
        size = "x".join(map(str, layer["output"]))
        print(
            f"  {layer['part']:<24}{size:>14}{layer['params']:>14,}{layer['mults']:>16,}  "
            f"{_described(layer)}".rstrip()
        )
    print(f"  params   {total.params:>16,}")
    print(f"  flops    {total.flops:>16,}")
    print(f"  mults    {total.mults:>16,}")
    print(f"  adds     {total.adds:>16,}")
    print(f"  traffic  {total.traffic_bytes:>16,} bytes, fused {total.traffic_bytes_fused:,}")
    print(f"  peak     {total.peak_activation_bytes:>16,} bytes of activations")
    x, y, depth = view.size
    print(f"  field    the centre of {last} sees ({x}, {y}, {depth}), {view.volume:,} inputs")
    print(f"  convention {counting.name}: {counting.statement}")


def _layers(built: Network, dtype: str, counting: Convention) -> list[dict[str, Any]]:
    """Each part: where it ends, what it costs, and what its operators see."""
    from analysis.cost import part_cost

    layers = []
    for part in built.parts:
        cost = part_cost(part, dtype=dtype, convention=counting)
        place = part.exit
        layers.append(
            {
                "part": part.name,
                "design": str(part.design) if part.design is not None else None,
                "sources": list(part.sources),
                "input": [part.entry.channels, part.entry.height, part.entry.width],
                "output": [place.features, place.out_height, place.out_width],
                "params": cost.params,
                "flops": cost.flops,
                "mults": cost.mults,
                "adds": cost.adds,
                "field": _field(part),
            }
        )
    return layers


def _field(part: Part) -> dict[str, Any] | None:
    """What the row of items sees of its own input, where a design stands."""
    from analysis.field import field_of_steps

    if part.design is None:
        return None
    seen = field_of_steps(part.body)
    return {"size": list(seen.size), "volume": seen.volume, "complete": seen.complete}


def _described(layer: dict[str, Any]) -> str:
    if layer["field"] is None:
        return ""
    size = ", ".join(map(str, layer["field"]["size"]))
    complete = "complete" if layer["field"]["complete"] else "incomplete"
    return f"{layer['design']}  ({size}) {complete}"


def _shape(text: str) -> tuple[int, int, int]:
    """`3x32x32`: channels, height, width."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise BadParameter(f"{text!r} is not an input; write channels x height x width: 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def _printed(row: Row, figure: Figure) -> str:
    """As the papers print, with as many digits: 4.0M, 101K, 0.444."""
    value = row.published[figure]
    scale, letter = next(
        (pair for pair in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if abs(value) >= pair[0]), (1, "")
    )
    if figure not in row.unit:
        return f"{value / scale:.4g}{letter}"
    digits = max(0, round(math.log10(scale / row.unit[figure])))
    return f"{value / scale:.{digits}f}{letter}"


def _exact(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
