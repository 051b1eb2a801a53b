"""Lean convolution over the layers of a network, as Fig. 5 of LeanConvNets, from stored rows.

Above: times, one line a method, logarithmic. Below: ours over the floor, and how many times as fast
it is as the best of those that a user could call instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kernels.backends import MissingComponentError

Row = Mapping[str, Any]
Series = dict[str, dict[str, float]]
"""method -> layer -> seconds."""


class Style(NamedTuple):
    """Of a method's line."""

    label: str
    colour: str
    width: float = 1.3
    dashes: str = "-"


STYLES = {
    "ours": Style("lean, 9 points (ours)", "#0b5fa5", 2.6),
    "lean 5": Style("lean, 5 points (ours)", "#4a9de0", 2.0),
    "lean 3": Style("lean, 3 points (ours)", "#9cc9f0", 2.0),
    "eager first": Style("eager, channels first", "#e08214"),
    "eager last": Style("eager, channels last", "#b35806"),
    "compiled": Style("torch.compile", "#7b3fa0"),
    "merged dense": Style("merged dense 3 x 3", "#333333"),
    "expanded": Style("expanded, 6 F channels", "#1b8a5a"),
    "1 x 1 alone": Style("1 x 1 alone", "#999999", dashes=":"),
    "floor": Style("floor", "#999999", dashes="--"),
}
"""In the order of the legend; a method is known by the beginning of its name."""
TITLES = {"both": "forward and backward"}
COLOURS = {"forward": "#0b5fa5", "both": "#e08214", "backward": "#e08214"}
RIVALS = ("eager", "compiled", "merged dense")
"""Peers that compute the same, by the beginning of their names."""


def require_matplotlib() -> None:
    """Raises MissingComponentError with the remedy."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingComponentError(f"{error}; pip install 'leanfield[plot]'") from error


def series_of(rows: Iterable[Row], kind: str, direction: str) -> Series:
    """The methods of lean convolution and, where it is known, the floor of the 9-point one."""
    found: Series = {}
    for row in rows:
        if (row["kind"], row["direction"]) != (kind, direction):
            continue
        if row["operation"] == "lean 9":
            times = {**row["seconds"], "floor": row["floor"]}
        else:
            times = {row["operation"]: _ours(row)}
        for name, seconds in times.items():
            method = next((known for known in STYLES if name.startswith(known)), None)
            if method is not None and seconds is not None:
                found.setdefault(method, {})[row["layer"]] = seconds
    return {method: found[method] for method in STYLES if method in found}


def drawable(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a stored run; those of `processor` by the names that `figures` gives them.

    Least times, as the ratios that are printed and stored there.
    """
    rows = []
    for row in result["rows"]:
        if "kind" not in row:
            if row["operation"] != "lean":
                continue
            seconds = {name: time["least"] for name, time in row["seconds"].items()}
            row = {**row, "operation": "lean 9", "kind": "fp32", "seconds": seconds}
        rows.append(dict(row))
    return rows


def measured_on(result: Mapping[str, Any]) -> str:
    """The machine of a stored run: a GPU by its name, a processor with its threads."""
    about = result["machine"]
    device = about.get("device", f"{result.get('threads')} threads").removeprefix("cpu, ")
    return f"{about['processor']}, {device}, torch {about['versions']['torch']}"


def plot(result: Mapping[str, Any], path: Path) -> Path:
    """The first precision of a stored run.

    Raises MissingComponentError without matplotlib, ValueError where no row can be drawn.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    rows = drawable(result)
    lean = [row for row in rows if row["operation"] == "lean 9"]
    if not lean:
        raise ValueError("there is nothing to draw: the 9-point lean convolution was not measured")
    kind = lean[0]["kind"]
    lean = [row for row in lean if row["kind"] == kind]
    batches = {row["layer"]: row["batch"] for row in lean}
    layers = {layer: batches[layer] for layer in sorted(batches, key=_place)}
    directions = list(dict.fromkeys(row["direction"] for row in lean))[:2]
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    (*times, _), (above, ratio, _) = panels = figure.subplots(
        2, 3, width_ratios=(1, 1, 0.4), height_ratios=(1.35, 1), squeeze=False
    )
    for axes in (panels[0][2], panels[1][2], *times[len(directions) :]):
        axes.set_axis_off()
    figure.suptitle(f"Lean convolution in {kind} on {measured_on(result)}", fontsize=11)
    for axes, direction in zip(times, directions, strict=False):
        _draw_times(axes, series_of(rows, kind, direction), layers)
        axes.set_title(f"Time of a call, {_title(direction)}", loc="left", fontsize=11)
        axes.set_ylabel("milliseconds")
    highs = [axes.get_ylim() for axes in times[: len(directions)]]
    for axes in times[: len(directions)]:
        axes.set_ylim(min(low for low, _ in highs), max(high for _, high in highs))
    _draw_ours(above, lean, layers, lambda row: row["floor"] and _ours(row) / row["floor"])
    above.set_title("Ours over the floor", loc="left", fontsize=11)
    above.set_ylabel("times the floor")
    _draw_ours(ratio, lean, layers, lambda row: _best(row) / _ours(row))
    ratio.set_title("The best of the others over ours", loc="left", fontsize=11)
    ratio.set_ylabel("times as fast")
    for axes, where in ((times[0], panels[0][2]), (ratio, panels[1][2])):
        handles, names = axes.get_legend_handles_labels()
        where.legend(handles, names, loc="center left", frameon=False, fontsize=9.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "leanfield"}):  # the same file from the same rows
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _draw_times(axes: Any, series: Series, layers: Mapping[str, int]) -> None:
    """One line a method."""
    for method, times in series.items():
        style = STYLES[method]
        wide = style.width > 2
        known = [(i, 1e3 * times[layer]) for i, layer in enumerate(layers) if layer in times]
        axes.plot(
            *zip(*known, strict=True),
            label=style.label,
            color=style.colour,
            linewidth=style.width,
            linestyle=style.dashes,
            marker="o" if wide else ".",
            markersize=5 if wide else 4,
            zorder=2 + style.width,
        )
    axes.set_yscale("log", subs=(2, 5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="y", which="both", labelsize=8.5)
    _frame(axes, layers)


def _draw_ours(
    axes: Any, rows: Iterable[Row], layers: Mapping[str, int], value: Callable[[Row], float | None]
) -> None:
    """One line a direction, from zero, with a line at one."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if (height := value(row)) is not None:
            found.setdefault(row["direction"], {})[row["layer"]] = height
    for direction, heights in found.items():
        known = [(i, heights[layer]) for i, layer in enumerate(layers) if layer in heights]
        axes.plot(
            *zip(*known, strict=True),
            label=_title(direction),
            color=COLOURS[direction],
            linewidth=2.2,
            marker="o",
            markersize=5,
        )
    axes.axhline(1, color="0.45", linewidth=1, linestyle="--")
    axes.set_ylim(0, 1.1 * max(1.0, *(h for one in found.values() for h in one.values())))
    _frame(axes, layers)


def _frame(axes: Any, layers: Mapping[str, int]) -> None:
    """layers: with their batches."""
    ticks = [_words(layer, batch) for layer, batch in layers.items()]
    axes.set_xticks(range(len(layers)), ticks, fontsize=9)
    axes.set_xlabel("channels, pixels of a map, batch")
    axes.set_xlim(-0.3, len(layers) - 0.7)
    axes.grid(axis="y", which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _ours(row: Row) -> float:
    return next(time for name, time in row["seconds"].items() if name.startswith("ours"))


def _best(row: Row) -> float:
    return min(time for name, time in row["seconds"].items() if name.startswith(RIVALS))


def _title(direction: str) -> str:
    return TITLES.get(direction, direction)


def _place(layer: str) -> tuple[int, int]:
    """Few channels first, large maps first."""
    channels, _, size = layer.partition("@")
    return int(channels), -int(size)


def _words(layer: str, batch: int) -> str:
    channels, _, size = layer.partition("@")
    return f"{channels}\n{size}²\nx {batch}"
