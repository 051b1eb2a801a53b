"""Times over layers, one line a method, on a logarithmic axis: as Fig. 5 of LeanConvNets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
            times = {row["operation"]: row["ours"]}
        for name, seconds in times.items():
            method = next((known for known in STYLES if name.startswith(known)), None)
            if method is not None and seconds is not None:
                found.setdefault(method, {})[row["layer"]] = seconds
    return {method: found[method] for method in STYLES if method in found}


def drawable(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The lean rows of `benchmarks.kernels` on the CPU, as those of `figures` are."""
    return [
        {
            **row,
            "operation": "lean 9",
            "kind": "fp32",
            "seconds": {name: time["median"] for name, time in row["seconds"].items()},
        }
        for row in rows
        if row["operation"] == "lean"
    ]


def plot(rows: Iterable[Row], path: Path) -> Path:
    """The directions side by side, of the first precision that was measured.

    Raises MissingComponentError without matplotlib, ValueError where no row can be drawn.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = list(rows)
    lean = [row for row in rows if row["operation"] == "lean 9"]
    if not lean:
        raise ValueError("there is nothing to draw: the 9-point lean convolution was not measured")
    kind = lean[0]["kind"]
    directions = list(dict.fromkeys(row["direction"] for row in lean))
    batches = {row["batch"] for row in lean}
    batch = f", batch {batches.pop()}" if len(batches) == 1 else ""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for axes, direction in zip(panels, directions, strict=True):
        _panel(axes, series_of(rows, kind, direction))
        title = f"{TITLES.get(direction, direction)}, {kind}{batch}"
        axes.set_title(title, loc="left", fontsize=11)
    panels[0].set_ylabel("milliseconds")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _panel(axes: Any, series: Series) -> None:
    """One line a method."""
    layers = sorted({layer for times in series.values() for layer in times}, key=_place)
    for method, times in series.items():
        style = STYLES[method]
        places = [i for i, layer in enumerate(layers) if layer in times]
        axes.plot(
            places,
            [1e3 * times[layers[i]] for i in places],
            label=style.label,
            color=style.colour,
            linewidth=style.width,
            linestyle=style.dashes,
            marker="o" if style.width > 2 else ".",
            markersize=5 if style.width > 2 else 4,
            zorder=2 + style.width,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(range(len(layers)), [_words(layer) for layer in layers], fontsize=8)
    axes.set_xlabel("channels, map")
    axes.grid(axis="y", which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _place(layer: str) -> tuple[int, int]:
    """Few channels first, large maps first."""
    channels, _, size = layer.partition("@")
    return int(channels), -int(size)


def _words(layer: str) -> str:
    channels, _, size = layer.partition("@")
    return f"{channels}\n{size}²"
