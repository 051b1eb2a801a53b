"""The commands that answer from the design alone: funnel, field, cost, optimum, doctor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any

from typer import Argument, BadParameter, Exit, Option

from spaces.design import Design, parse, split_outside_brackets
from spaces.operator import DesignError

Text = Annotated[str, Argument(metavar="DESIGN", help="e.g. 'PWG(4)+DW+PWG(4)@1/4'")]
Channels = Annotated[int, Option(min=1, help="input channels C")]
OutChannels = Annotated[int | None, Option(min=1, help="output channels F; C unless given")]
Json = Annotated[bool, Option("--json", help="one JSON object on standard output")]


def emit(data: dict[str, Any]) -> None:
    """The one object of --json."""
    print(json.dumps(data))


def map_size(text: str) -> tuple[int, int]:
    """`32` or `32x48`: height and width of a map."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise BadParameter(f"{text!r} is not a map size; write 32 or 32x48")
    return int(parts[0]), int(parts[-1])


def ratio(text: str) -> Fraction:
    """`2`, `0.5` or `1/2`."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise BadParameter(f"{text!r} is not a positive ratio; write 2, 0.5 or 1/2")
    return value


def settled(text: str, channels: int, out_channels: int | None) -> Design:
    """The design of the text with its stars filled in; a family is refused by its optimum."""
    from analysis.theorems import optimum, resolve

    design = parse(text)
    if not design.is_family:
        return design
    if "*" in text:
        return resolve(design, channels, out_channels)
    best = optimum(design, channels, out_channels).design
    raise DesignError(f"{design} names a family, not a design; its optimum here is {best}")


def funnel(
    channels: Channels = 64,
    max_length: Annotated[
        int | None, Option(min=1, help="operators in a design at most: 6, in others 4")
    ] = None,
    vocabulary: Annotated[
        str, Option(help="operators, separated by commas, e.g. 'PW,LEAN(s=5)', or all")
    ] = "GC,DW,PW,PWG",
    target: Annotated[
        str | None, Option(help="size (the paper's) or covers; both for other vocabularies")
    ] = None,
    kernel: Annotated[int, Option(min=1, help="kernel size of the dense convolution")] = 3,
    off: Annotated[list[str] | None, Option(help="switch a rule off (may be repeated)")] = None,
    why: Annotated[
        str | None, Option(help="ask about one composition, e.g. 'PW+DW+PW@1/4'")
    ] = None,
    as_json: Json = False,
) -> None:
    """From all compositions to the few that are worth trying, with a reason for each removal."""
    from analysis.funnel import default_target, is_papers
    from analysis.funnel import funnel as run_funnel
    from nas import funnel_report
    from spaces.symbols import every_symbol, symbols

    names = split_outside_brackets(vocabulary, ",")
    words = every_symbol(kernel) if names == ["all"] else symbols(names)
    arguments: dict[str, Any] = {
        "channels": channels,
        "vocabulary": words,
        "max_length": max_length,
        "kernel": kernel,
        "off": tuple(off or ()),
    }
    if target is None and why is None and not is_papers(words):
        report = funnel_report.both_targets(arguments, default_target(words))
        if as_json:
            emit(report)
            return
        for each in (report, report["other_target"]):
            print(*funnel_report.lines(each), "", sep="\n")
        return
    result = run_funnel(**arguments, target=target)
    if why is not None:
        verdict = result.why(why)
        facts = {"kept": verdict.kept, "rule": verdict.rule, "reason": verdict.reason}
        if as_json:
            emit({"design": why, **facts})
        else:
            head = "kept" if verdict.kept else f"removed by {verdict.rule}"
            print(f"{why}: {head}. {verdict.reason or ''}".rstrip())
        return
    if as_json:
        emit(funnel_report.with_survivors(result))
        return
    if not is_papers(words):
        print(*funnel_report.lines(funnel_report.with_survivors(result)), sep="\n")
        return
    print(f"{'pass':<12}{'rule':<14}{'kept':>8}{'removed':>10}")
    for s in result.steps:
        print(f"{s.stage:<12}{s.rule:<14}{s.kept:>8,}{s.removed:>10,}")
    print(f"designs: {', '.join(result.designs) or 'none'}")


def field(
    design: Text,
    channels: Channels,
    out_channels: OutChannels = None,
    kernel: Annotated[int, Option(min=1, help="side of the target window")] = 3,
    size: Annotated[
        str | None, Option(help="map size, e.g. 32 or 32x48; unbounded if absent")
    ] = None,
    output: Annotated[int | None, Option(min=0, help="the output channel to describe")] = None,
    as_json: Json = False,
) -> None:
    """Exactly which inputs (channel, dy, dx) one output activation reads."""
    from analysis.field import field as information_field

    concrete = settled(design, channels, out_channels)
    bounds = map_size(size) if size else None
    seen = information_field(
        concrete, channels, out_channels, kernel=kernel, size=bounds, output=output
    )
    facts = seen.to_dict()
    if as_json:
        emit({"design": str(concrete), **facts})
        return
    print(f"{concrete} at {channels} -> {out_channels or channels} channels")
    read = f"{_sizes(seen.size)}, {_inputs(seen.volume)}"
    print(f"  field     {read}, extent {_sizes(seen.extent)}")
    print(f"  complete  {_yes(seen.complete)} (every output sees {kernel} x {kernel} x {channels})")
    print(f"  uniform   {_yes(seen.uniform)} (all outputs see equally much)")
    if seen.missing_channels:
        print(f"  missing   {len(seen.missing_channels)} channels: {_some(seen.missing_channels)}")
    if seen.missing_taps:
        print(f"  missing   {seen.missing_taps:,} inputs of the window")
    for step in facts["steps"]:
        print(f"  after {step['operator']:<12} {_sizes(step['size'])}, {_inputs(step['volume'])}")


def cost(
    design: Text,
    channels: Channels,
    out_channels: OutChannels = None,
    size: Annotated[str, Option(help="map size, e.g. 32 or 32x48")] = "32",
    stride: Annotated[int, Option(min=1)] = 1,
    dtype: Annotated[str, Option(help="float32, bfloat16, float16, float64 or int8")] = "float32",
    as_json: Json = False,
) -> None:
    """Parameters, multiplications, additions and memory traffic, without building anything."""
    from analysis.cost import TORCH
    from analysis.cost import cost as analytic_cost

    concrete = settled(design, channels, out_channels)
    total = analytic_cost(
        concrete, channels, out_channels, size=map_size(size), stride=stride, dtype=dtype
    )
    if as_json:
        emit({"design": str(concrete), **total.to_dict()})
        return
    print(f"{concrete} at {channels} -> {out_channels or channels} channels, map {size}, {dtype}")
    print(f"  params   {total.params:>14,}")
    print(f"  mults    {total.mults:>14,}")
    print(f"  adds     {total.adds:>14,}")
    print(f"  traffic  {total.traffic_bytes:>14,} bytes, fused {total.traffic_bytes_fused:,}")
    print(f"  intensity {total.intensity:>13.2f} operations a byte")
    print(f"  convention {TORCH.name}: {TORCH.statement}")


def optimum(
    family: Text,
    channels: Annotated[int | None, Option(min=1, help="input channels C")] = None,
    out_channels: OutChannels = None,
    params: Annotated[int | None, Option(min=1, help="ask for the widest layer instead")] = None,
    alpha: Annotated[str, Option(help="F = alpha C, with --params, e.g. 2 or 1/2")] = "1",
    as_json: Json = False,
) -> None:
    """The group numbers that need the fewest parameters for a complete field."""
    from analysis.theorems import optimum as best_groups
    from analysis.theorems import widest

    if (channels is None) == (params is None):
        raise BadParameter("give either --channels or --params")
    wanted = parse(family)
    facts: dict[str, Any] = {"family": str(wanted)}
    if channels is not None:
        best = best_groups(wanted, channels, out_channels)
        facts |= {"channels": channels, "bound": best.bound, "gap": best.gap}
    elif params is not None:
        found = widest(wanted, params, ratio(alpha))
        best = found.optimum
        facts |= {"channels": found.channels, "bound": found.bound, "gap": found.gap}
    facts |= {"design": str(best.design), "groups": list(best.groups), "params": best.params}
    if as_json:
        emit(facts)
        return
    unit = "parameters"
    if params is not None:
        unit = "channels"
        print(f"widest within {params:,} parameters: {facts['channels']} channels")
    print(f"{best.design}: group numbers {tuple(best.groups)}, {best.params:,} parameters")
    print(f"  real-valued bound {facts['bound']:,.1f} {unit}, gap {facts['gap']:.1%}")


def doctor(as_json: Json = False) -> None:
    """What is installed, which back ends serve, what is missing and how to get it."""
    from nas.doctor import diagnose

    report = diagnose()
    if as_json:
        emit(report.to_dict())
    else:
        print(report)
    if report.missing:
        raise Exit(4)


def _inputs(volume: int | str) -> str:
    """`all inputs` where a whole plane is read."""
    return f"{volume:,} inputs" if isinstance(volume, int) else f"{volume} inputs"


def _sizes(counts: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, counts))})"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _some(items: Sequence[int]) -> str:
    return ", ".join(map(str, items[:8])) + (", ..." if len(items) > 8 else "")
